// Draws the tree on a canvas: what is in view, at any scale, with zoom, pan and a pointer that finds modifications.

const VERDICTS = ["accepted", "undecided", "rejected"];
const AXIS_PX = 22, LEGEND_PX = 40, MARGIN_PX = 26, REACH_PX = 12, WIDEST_PX = 170, HIGHEST_PX = 34;
// More curves than these hide the tree; they are shown when they are asked for.
const FEW_CURVES = 150;

class TreeView {
  constructor(canvas, tree, place, told) {
    Object.assign(this, { canvas, tree, place, told, context: canvas.getContext("2d") });
    this.hidden = new Set();    // verdicts
    this.matches = new Set();   // of the search
    this.line = new Set();      // the selected modification and its first parents
    this.selected = this.hovered = -1;
    this.showsOthers = tree.others.size <= FEW_CURVES;
    this.scaleX = this.scaleY = this.x = this.y = 0;
    this.inColumn = Array.from({ length: place.columns }, () => []);
    for (let i = 0; i < tree.count; i++) this.inColumn[place.column[i]].push(i);
    for (const column of this.inColumn) column.sort((a, b) => place.lane[a] - place.lane[b]);
    this.furthestParent = this.#longestReach();
    this.#listen();
    new ResizeObserver(() => this.resized()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  // For each column, the first column that an edge into it or across it comes from.
  #longestReach() {
    const reach = Int32Array.from({ length: this.place.columns + 1 }, (_, x) => x);
    const { parent } = this.tree, { column } = this.place;
    for (let i = 0; i < parent.length; i++)
      if (parent[i] >= 0) reach[column[i]] = Math.min(reach[column[i]], column[parent[i]]);
    return reach;
  }

  // ------------------------------------------------------------------------------------------------ scale and place

  resized() {
    const { width, height } = this.canvas.getBoundingClientRect(), ratio = devicePixelRatio || 1;
    if (!width || !height) return;
    const first = !this.width;
    Object.assign(this, { width, height, ratio });
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(height * ratio);
    if (first) this.fit();
    else this.draw();
  }

  fit() {
    const lanes = this.place.lane;
    let least = Infinity, most = -Infinity;
    for (const lane of lanes) { least = Math.min(least, lane); most = Math.max(most, lane); }
    const across = Math.max(1, this.place.columns - 1), down = Math.max(1, most - least);
    const width = this.width - 2 * MARGIN_PX, height = this.height - AXIS_PX - LEGEND_PX - 2 * MARGIN_PX;
    this.scaleX = Math.min(width / across, WIDEST_PX);
    this.scaleY = Math.min(height / down, HIGHEST_PX);
    this.least = { x: this.scaleX / 2, y: this.scaleY / 2 };
    this.x = MARGIN_PX + (width - across * this.scaleX) / 2;
    this.y = AXIS_PX + MARGIN_PX + (height - down * this.scaleY) / 2 - least * this.scaleY;
    this.draw();
  }

  zoom(factor, atX = this.width / 2, atY = this.height / 2) {
    const x = Math.min(WIDEST_PX, Math.max(this.least.x, this.scaleX * factor));
    const y = Math.min(HIGHEST_PX, Math.max(this.least.y, this.scaleY * factor));
    this.x = atX - ((atX - this.x) / this.scaleX) * x;
    this.y = atY - ((atY - this.y) / this.scaleY) * y;
    this.scaleX = x;
    this.scaleY = y;
    this.#letGo();
    this.draw();
  }

  pan(x, y) {
    this.x += x;
    this.y += y;
    this.#letGo();
    this.draw();
  }

  // What was under the pointer is elsewhere now.
  #letGo() {
    this.hovered = -1;
    this.told.hovered(-1);
  }

  at(i) {
    return [this.x + this.place.column[i] * this.scaleX, this.y + this.place.lane[i] * this.scaleY];
  }

  bringIntoView(i) {
    // Near enough to be told from its neighbours.
    this.scaleX = Math.max(this.scaleX, 28);
    this.scaleY = Math.max(this.scaleY, 14);
    const [x, y] = this.at(i);
    if (x < MARGIN_PX || x > this.width - MARGIN_PX) this.x += this.width / 2 - x;
    if (y < AXIS_PX + MARGIN_PX || y > this.height - MARGIN_PX) this.y += this.height / 2 - y;
    this.draw();
  }

  find(x, y) {
    const middle = (x - this.x) / this.scaleX, around = Math.max(0.5, REACH_PX / this.scaleX);
    let found = -1, nearest = REACH_PX ** 2;
    const last = Math.min(this.place.columns - 1, Math.floor(middle + around));
    for (let c = Math.max(0, Math.ceil(middle - around)); c <= last; c++) {
      const column = this.inColumn[c];
      const lane = (y - REACH_PX - this.y) / this.scaleY;
      let low = 0, high = column.length;
      while (low < high) {
        const half = (low + high) >> 1;
        if (this.place.lane[column[half]] < lane) low = half + 1; else high = half;
      }
      for (; low < column.length; low++) {
        const i = column[low], [nodeX, nodeY] = this.at(i);
        if (nodeY > y + REACH_PX) break;
        const distance = (nodeX - x) ** 2 + (nodeY - y) ** 2;
        if (distance < nearest && !this.hidden.has(this.tree.verdict[i])) [found, nearest] = [i, distance];
      }
    }
    return found;
  }

  // ------------------------------------------------------------------------------------------------ drawing

  draw() {
    if (this.waiting) return;
    this.waiting = requestAnimationFrame(() => {
      this.waiting = 0;
      this.paint();
    });
  }

  paint() {
    if (!this.width) return;
    const style = getComputedStyle(this.canvas);
    this.colour = (name) => style.getPropertyValue(`--${name}`);
    const { context, ratio } = this;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, this.width, this.height);
    const { visible, into } = this.#inView();
    const labels = this.#axis();
    this.#edges(into);
    this.#nodes(visible);
    this.#names(visible);
    this.#steps(labels);
  }

  #inView() {
    const { tree, place } = this;
    const from = Math.max(0, Math.floor(-this.x / this.scaleX) - 1);
    const to = Math.min(place.columns - 1, Math.ceil((this.width - this.x) / this.scaleX) + 1);
    const top = -this.y / this.scaleY - 1, bottom = (this.height - this.y) / this.scaleY + 1;
    const visible = [], into = [];
    for (let c = from; c < place.columns; c++) {
      // Beyond the right edge only what comes from within the view matters.
      if (c > to && this.furthestParent[c] > to) continue;
      for (const i of this.inColumn[c]) {
        if (this.hidden.has(tree.verdict[i])) continue;
        const lane = place.lane[i], above = tree.parent[i];
        const inside = lane >= top && lane <= bottom;
        if (c <= to && inside) visible.push(i);
        if (above < 0 || place.column[above] > to) continue;
        if (inside || (place.lane[above] >= top) !== (lane > bottom)) into.push(i);
      }
    }
    return { visible, into };
  }

  // Draws a line for each step that there is room to name, and returns which these are.
  #axis() {
    const { context } = this, labels = [];
    context.font = "11px system-ui, sans-serif";
    context.strokeStyle = this.colour("grid");
    context.lineWidth = 1;
    context.beginPath();
    let free = 34;
    for (const [step, column] of this.place.steps) {
      const x = this.x + column * this.scaleX, text = String(step), half = context.measureText(text).width / 2;
      if (x - half < free || x > this.width) continue;
      free = x + half + 24;
      labels.push([text, x]);
      context.moveTo(Math.round(x) + 0.5, 0);
      context.lineTo(Math.round(x) + 0.5, this.height);
    }
    context.stroke();
    return labels;
  }

  #steps(labels) {
    const { context } = this;
    context.fillStyle = this.colour("surface");
    context.fillRect(0, 0, this.width, AXIS_PX);
    context.fillStyle = this.colour("muted");
    context.textBaseline = "middle";
    context.textAlign = "left";
    context.fillText("step", 4, AXIS_PX / 2);
    context.textAlign = "center";
    for (const [text, x] of labels) context.fillText(text, x, AXIS_PX / 2);
  }

  #edges(into) {
    const { tree } = this, search = this.matches.size > 0;
    this.#stroke(into.filter((i) => tree.verdict[i] === "rejected"), "edge-rejected", 1);
    this.#stroke(into.filter((i) => tree.verdict[i] !== "rejected"), search ? "edge-rejected" : "edge", 1.4);
    this.#stroke(into.filter((i) => tree.champions.has(i)), "champion", Math.max(4, Math.min(8, 0.9 * this.scaleY)));
    this.#stroke(into.filter((i) => this.line.has(i)), "selected", 2.5);
    this.#otherParents();
  }

  #stroke(nodes, colour, width) {
    const { context, tree } = this, turn = Math.min(this.scaleX / 2, 14);
    context.strokeStyle = this.colour(colour);
    context.lineWidth = width;
    context.beginPath();
    for (const i of nodes) {
      const [x, y] = this.at(i), [fromX, fromY] = this.at(tree.parent[i]);
      context.moveTo(fromX, fromY);
      if (y !== fromY) {
        const turnX = this.place.late[i] ? x - turn : fromX + turn;
        context.lineTo(turnX, fromY);
        context.lineTo(turnX, y);
      }
      context.lineTo(x, y);
    }
    context.stroke();
  }

  // Second and further parents: curves, since they may come from anywhere.
  #otherParents() {
    const { context, tree } = this;
    for (const [i, parents] of tree.others) {
      if (this.hidden.has(tree.verdict[i])) continue;
      const marked = this.line.has(i) || parents.includes(this.selected), [x, y] = this.at(i);
      if (!marked && !this.showsOthers) continue;
      context.strokeStyle = this.colour(marked ? "selected" : "other");
      context.lineWidth = 1;
      for (const parent of parents) {
        const [fromX, fromY] = this.at(parent);
        if (Math.max(x, fromX) < 0 || Math.min(x, fromX) > this.width) continue;
        if (Math.max(y, fromY) < 0 || Math.min(y, fromY) > this.height) continue;
        context.beginPath();
        context.moveTo(fromX, fromY);
        context.bezierCurveTo((fromX + x) / 2, fromY, (fromX + x) / 2, y, x, y);
        context.stroke();
      }
    }
  }

  #nodes(visible) {
    const { context, tree } = this, search = this.matches.size > 0;
    const size = Math.max(1.2, Math.min(6, this.scaleX / 3, this.scaleY / 2.6));
    for (const verdict of VERDICTS) {
      const nodes = visible.filter((i) => tree.verdict[i] === verdict);
      context.globalAlpha = search ? 0.25 : 1;
      this.#shapes(nodes.filter((i) => !this.matches.has(i)), verdict, size);
      context.globalAlpha = 1;
      if (search) this.#shapes(nodes.filter((i) => this.matches.has(i)), verdict, Math.max(size, 4));
    }
    const survivors = visible.filter((i) => tree.survivors.has(i));
    if (size < 2) this.#shapes(survivors, "survivor", 1.9);
    else for (const i of survivors) this.#ring(i, size + 2.5, "survivor", 1.6);
    if (tree.best >= 0) this.#ring(tree.best, Math.max(size, 4) + 3, "champion", 3);
    for (const i of new Set([this.hovered, this.selected]))
      if (i >= 0) this.#ring(i, Math.max(size, 3) + 5, "selected", 2);
  }

  #shapes(nodes, verdict, size) {
    const { context } = this;
    context.fillStyle = context.strokeStyle = this.colour(verdict);
    context.lineWidth = 1.3;
    context.beginPath();
    for (const i of nodes) {
      const [x, y] = this.at(i);
      if (size < 2 || verdict === "undecided") context.rect(x - size * 0.85, y - size * 0.85, size * 1.7, size * 1.7);
      else if (verdict === "accepted") {
        context.moveTo(x + size, y);
        context.arc(x, y, size, 0, 2 * Math.PI);
      } else {
        const arm = size * 0.7;
        context.moveTo(x - arm, y - arm);
        context.lineTo(x + arm, y + arm);
        context.moveTo(x - arm, y + arm);
        context.lineTo(x + arm, y - arm);
      }
    }
    if (verdict === "rejected" && size >= 2) context.stroke();
    else context.fill();
  }

  #ring(i, size, colour, width) {
    const [x, y] = this.at(i);
    this.context.strokeStyle = this.colour(colour);
    this.context.lineWidth = width;
    this.context.beginPath();
    this.context.arc(x, y, size, 0, 2 * Math.PI);
    this.context.stroke();
  }

  #names(visible) {
    if (this.scaleX < 90 || this.scaleY < 22) return;
    const { context, tree } = this, room = Math.floor((this.scaleX - 26) / 6);
    context.font = "11px system-ui, sans-serif";
    context.textAlign = "left";
    context.textBaseline = "middle";
    context.fillStyle = this.colour("text");
    for (const i of visible) {
      const [x, y] = this.at(i), text = tree.type[i] || tree.id[i];
      context.fillText(text.length > room ? `${text.slice(0, room - 1)}…` : text, x + 9, y + 10);
    }
  }

  // ------------------------------------------------------------------------------------------------ pointer

  #listen() {
    const { canvas } = this, pointers = new Map();
    let moved = 0;
    const where = (event) => [event.offsetX, event.offsetY];
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015)), ...where(event));
    }, { passive: false });
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      pointers.set(event.pointerId, where(event));
      moved = 0;
    });
    canvas.addEventListener("pointermove", (event) => {
      const [x, y] = where(event), before = pointers.get(event.pointerId);
      if (!before) return this.#hover(x, y);
      moved += Math.abs(x - before[0]) + Math.abs(y - before[1]);
      const other = [...pointers].find(([id]) => id !== event.pointerId);
      if (other) {
        const [otherX, otherY] = other[1];
        const spread = Math.hypot(x - otherX, y - otherY) / Math.hypot(before[0] - otherX, before[1] - otherY);
        this.zoom(spread, otherX, otherY);
      } else this.pan(x - before[0], y - before[1]);
      pointers.set(event.pointerId, [x, y]);
    });
    canvas.addEventListener("pointerup", (event) => {
      pointers.delete(event.pointerId);
      if (moved < 5) this.told.selected(this.find(...where(event)));
    });
    canvas.addEventListener("pointercancel", (event) => pointers.delete(event.pointerId));
    canvas.addEventListener("pointerleave", () => this.#hover(-1e6, -1e6));
  }

  #hover(x, y) {
    const found = this.find(x, y);
    this.canvas.style.cursor = found < 0 ? "grab" : "pointer";
    if (found === this.hovered) return;
    this.hovered = found;
    this.told.hovered(found, x, y);
    this.draw();
  }
}
