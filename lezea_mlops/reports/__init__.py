"""What a person looks at after a run, or during it: trees as rows of text, and as a page."""
