"""Secrets removed from texts before anything is journaled: by exact name, by shape, and from URIs.

Numbers and metric names are never touched: ``max_tokens`` stays.
"""

from __future__ import annotations

import re

_SECRET_NAMES = frozenset(
    """password passwd passphrase pwd token access_token auth_token refresh_token id_token api_token secret
    client_secret secret_key secret_access_key aws_secret_access_key aws_session_token api_key apikey
    access_key private_key authorization auth credential credentials cookie session_key github_token
    gitlab_token hf_token huggingface_token openai_api_key anthropic_api_key wandb_api_key neptune_api_token
    comet_api_key mlflow_tracking_password mlflow_tracking_token databricks_token""".split()
)

# Each shape is long and starts in its own way, so that ordinary words are not taken for it.
_TOKEN_SHAPES = re.compile(
    r"""\b(?:
        sk-[A-Za-z0-9_\-]{20,}                |   # OpenAI and relatives
        hf_[A-Za-z0-9]{20,}                   |   # Hugging Face
        gh[pousr]_[A-Za-z0-9]{30,}            |   # GitHub
        github_pat_[A-Za-z0-9_]{30,}          |
        glpat-[A-Za-z0-9_\-]{18,}             |   # GitLab
        xox[abprs]-[A-Za-z0-9\-]{10,}         |   # Slack
        AKIA[0-9A-Z]{16}                      |   # Amazon access key id
        AIza[0-9A-Za-z_\-]{35}                |   # Google
        eyJ[A-Za-z0-9_\-]{10,}\.[A-Za-z0-9_\-]{10,}\.[A-Za-z0-9_\-]{10,}   # JSON web token
    )""",
    re.VERBOSE,
)
# A scheme is short (a longer search would be slow in long texts); a password may hold an ``@`` of its own.
_USERINFO = re.compile(r"(?P<scheme>\b[A-Za-z][A-Za-z0-9+.\-]{0,30}://)[^/\s?#]*@")
_SHORTEST_SECRET = 8


class Redactor:
    """Replaces secrets in texts by a mask, and says how many it found."""

    MASK = "[redacted]"

    def is_secret_name(self, name: str) -> bool:
        """Tell whether a text under *name* is a secret, whatever it looks like."""
        plain = name.strip("-+").replace("-", "_").lower()
        return plain in _SECRET_NAMES or plain.rpartition(".")[2] in _SECRET_NAMES

    def redact(self, text: str) -> tuple[str, int]:
        """Return *text* without tokens of known shapes and without userinfo in URIs, and the count."""
        if len(text) < _SHORTEST_SECRET:
            return text, 0
        text, tokens = _TOKEN_SHAPES.subn(self.MASK, text)
        if "://" not in text:
            return text, tokens
        text, users = _USERINFO.subn(lambda found: f"{found['scheme']}{self.MASK}@", text)
        return text, tokens + users

    def redact_arguments(self, arguments: list[str]) -> tuple[list[str], int]:
        """Return command-line arguments without the values of secret options.

        They come as ``--token x``, ``--token=x`` and, as configuration tools have it, ``server.token=x``.
        """
        cleaned: list[str] = []
        count = 0
        value_is_secret = False
        for argument in arguments:
            name, sign, _value = argument.partition("=")
            if value_is_secret:
                cleaned.append(self.MASK)
                count += 1
                value_is_secret = False
            elif sign and self.is_secret_name(name):
                cleaned.append(f"{name}={self.MASK}")
                count += 1
            else:
                value_is_secret = argument.startswith("-") and not sign and self.is_secret_name(argument)
                shown, found = self.redact(argument)
                cleaned.append(shown)
                count += found
        return cleaned, count
