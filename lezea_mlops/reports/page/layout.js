// Where each modification stands: its column is its step, and lines of descent run side by side. No two modifications
// share a place, and the edges to the first parents do not cross.
//
// A parent comes before its children in all arrays; `parent` holds its index, or -1. Nothing here is recursive.

function columnsOf(parent, step) {
  // A step has as many columns as the longest line of modifications that were logged at once.
  const count = parent.length, at = new Array(count), within = new Int32Array(count), widths = new Map();
  for (let i = 0; i < count; i++) {
    const above = parent[i] < 0 ? -Infinity : at[parent[i]];
    at[i] = Math.max(step[i] === null ? above : step[i], above);
    within[i] = parent[i] >= 0 && at[i] === above ? within[parent[i]] + 1 : 0;
    widths.set(at[i], Math.max(widths.get(at[i]) || 0, within[i] + 1));
  }
  const starts = new Map();
  let end = 0;
  for (const each of [...widths.keys()].sort((a, b) => a - b)) {
    starts.set(each, end);
    end += widths.get(each);
  }
  const column = Int32Array.from(at, (each, i) => starts.get(each) + within[i]);
  return { column, columns: end, steps: [...starts].filter(([each]) => each !== -Infinity) };
}

function linesOf(parent, column, accepted, favoured) {
  // The child that continues its parent's line: the favoured one, else the one with most descendants, else an accepted
  // one, else the last.
  const count = parent.length, size = new Int32Array(count).fill(1), next = new Int32Array(count).fill(-1);
  for (let i = count - 1; i >= 0; i--) if (parent[i] >= 0) size[parent[i]] += size[i];
  const weight = (i) => (favoured.has(i) ? Infinity : 2 * size[i] + (accepted(i) ? 1 : 0));
  for (let i = count - 1; i >= 0; i--) {
    const above = parent[i];
    if (above >= 0 && (next[above] < 0 || weight(i) > weight(next[above]))) next[above] = i;
  }
  // A parent's line lasts until the child that continues it; a child born later branches off right behind the parent.
  const late = Uint8Array.from(parent, (above, i) => (above >= 0 && column[i] <= column[next[above]] ? 1 : 0));
  return { size, next, late };
}

// The outline of a line and all that branches off it: the least and the greatest lane taken in each column, counted
// from the lane of the line itself.
class Outline {
  constructor(first, last) {
    this.first = first;
    this.top = new Int32Array(last - first + 1).fill(1e9);
    this.bottom = new Int32Array(last - first + 1).fill(-1e9);
  }

  takeOwnLane(last) {
    this.top.fill(0, 0, last - this.first + 1);
    this.bottom.fill(0, 0, last - this.first + 1);
  }

  // Place another outline beside what is here, on the nearer side, and return its lane.
  join(other) {
    const shift = other.first - this.first;
    let below = 1, above = -1;
    for (let x = 0; x < other.top.length; x++) {
      below = Math.max(below, this.bottom[x + shift] - other.top[x] + 1);
      above = Math.min(above, this.top[x + shift] - other.bottom[x] - 1);
    }
    const lane = below <= -above ? below : above;
    for (let x = 0; x < other.top.length; x++) {
      this.top[x + shift] = Math.min(this.top[x + shift], other.top[x] + lane);
      this.bottom[x + shift] = Math.max(this.bottom[x + shift], other.bottom[x] + lane);
    }
    return lane;
  }
}

function lanesOf(parent, column, columns, { size, next, late }) {
  const count = parent.length, furthest = Int32Array.from(column), offset = new Int32Array(count);
  const branches = Array.from({ length: count }, () => []), heads = [];
  for (let i = count - 1; i >= 0; i--) {
    const above = parent[i];
    if (above >= 0) furthest[above] = Math.max(furthest[above], furthest[i]);
    if (above >= 0 && next[above] === i) continue;
    heads.push(i);
    if (above >= 0) branches[above].push(i);
  }
  const first = (head) => (parent[head] < 0 || late[head] ? column[head] : column[parent[head]] + 1);
  const outlines = new Map();
  const join = (outline, head) => {
    offset[head] = outline.join(outlines.get(head));
    outlines.delete(head);
  };
  // From the last to the first, so that what branches off a line is there before the line.
  for (const head of heads) {
    const outline = new Outline(first(head), furthest[head]), beside = [];
    let last = head;
    for (let i = head; i >= 0; i = next[i]) {
      beside.push(...branches[i]);
      last = i;
    }
    outline.takeOwnLane(column[last]);
    // What branches off later stands nearer, or its edge would cross what branched off before.
    beside.sort((a, b) => first(b) - first(a) || late[b] - late[a] || size[a] - size[b] || a - b);
    for (const branch of beside) join(outline, branch);
    outlines.set(head, outline);
  }
  const whole = new Outline(0, Math.max(0, columns - 1));
  const roots = heads.filter((i) => parent[i] < 0).sort((a, b) => size[b] - size[a] || a - b);
  for (const root of roots) join(whole, root);
  const lane = new Int32Array(count);
  for (let i = 0; i < count; i++) {
    const above = parent[i];
    lane[i] = (above < 0 ? 0 : lane[above]) + (above < 0 || next[above] !== i ? offset[i] : 0);
  }
  return lane;
}

function layoutOf(parent, step, accepted, favoured) {
  const { column, columns, steps } = columnsOf(parent, step);
  const lines = linesOf(parent, column, accepted, favoured);
  return { column, columns, steps, late: lines.late, lane: lanesOf(parent, column, columns, lines) };
}
