// The page around the drawing. What was logged is set as text only, never as markup.

const byId = (id) => document.getElementById(id);

function element(name, text, attributes = {}) {
  const made = document.createElement(name);
  if (text !== undefined && text !== null) made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function shown(number, digits = 4) {
  if (typeof number !== "number" || Number.isInteger(number)) return String(number);
  return String(Number(number.toPrecision(digits)));
}

const signed = (number, digits) => (number > 0 ? "+" : "") + shown(number, digits);

// The columns of the data, with texts in place of their numbers.
function treeOf(data) {
  const texts = (numbers) => numbers.map((number) => (number < 0 ? null : data.texts[number]));
  const names = { a: "accepted", r: "rejected", u: "undecided" };
  const children = Array.from(data.id, () => []);
  data.parent.forEach((above, i) => above >= 0 && children[above].push(i));
  const others = new Map(data.others.map(([i, parents]) => [i, parents]));
  for (const [i, parents] of others) for (const parent of parents) children[parent].push(i);
  return {
    ...data, children, others,
    count: data.id.length,
    verdict: Array.from(data.verdict, (letter) => names[letter]),
    type: texts(data.type), target: texts(data.target), scope: texts(data.scope),
    params: texts(data.params), more: texts(data.more),
    champions: new Set(data.champions), survivors: new Set(data.survivors), indirect: new Set(data.indirect),
    unshown: new Map(data.unshown),
  };
}

class Page {
  constructor(tree) {
    this.tree = tree;
    this.place = layoutOf(tree.parent, tree.step, (i) => tree.verdict[i] === "accepted", tree.champions);
    this.view = new TreeView(byId("tree"), tree, this.place, {
      selected: (i) => this.select(i), hovered: (i, x, y) => this.hover(i, x, y),
    });
    this.#legend();
    this.#search();
    this.#keys();
    this.#table();
    byId("zoom-in").onclick = () => this.view.zoom(1.5);
    byId("zoom-out").onclick = () => this.view.zoom(1 / 1.5);
    byId("fit").onclick = () => this.view.fit();
    byId("champion").onclick = () => this.select(tree.best, true);
    byId("champion").hidden = tree.best < 0;
    byId("close").onclick = () => this.select(-1);
  }

  // ------------------------------------------------------------------------------------------------ one modification

  lineOf(i) {
    const line = [];
    for (; i >= 0; i = this.tree.parent[i]) line.push(i);
    return line.reverse();
  }

  select(i, bring = false) {
    this.view.selected = i;
    this.view.line = new Set(i < 0 ? [] : this.lineOf(i));
    if (i >= 0 && bring) this.view.bringIntoView(i);
    else this.view.draw();
    byId("details").hidden = i < 0;
    byId("hint").hidden = i >= 0;
    if (i >= 0) this.#details(i);
  }

  hover(i, x, y) {
    const tip = byId("tip");
    tip.hidden = i < 0;
    if (i < 0) return;
    const { tree } = this;
    tip.replaceChildren(element("b", tree.id[i]), element("div", this.#summary(i)));
    if (tree.params[i]) tip.append(element("code", tree.params[i].slice(0, 300)));
    const box = tip.getBoundingClientRect(), around = this.view;
    tip.style.left = `${Math.max(0, Math.min(x + 14, around.width - box.width - 4))}px`;
    tip.style.top = `${y + 18 + box.height > around.height ? Math.max(0, y - box.height - 10) : y + 18}px`;
  }

  #summary(i, verdict = true) {
    const { tree } = this, parts = [tree.type[i], verdict ? tree.verdict[i] : null];
    const gain = tree.gain[i] === null ? "" : ` (${signed(tree.gain[i], 2)})`;
    if (tree.score[i] !== null) parts.push(`score ${shown(tree.score[i])}${gain}`);
    return parts.filter((part) => part !== null).join(" · ");
  }

  #details(i) {
    const { tree } = this, list = byId("fields");
    byId("name").textContent = tree.id[i];
    byId("said").textContent = `${tree.id[i]}: ${this.#summary(i)}`;
    list.replaceChildren();
    const row = (name, value) => {
      if (value === null || value === undefined) return;
      const cell = element("dd");
      cell.append(value);
      list.append(element("dt", name), cell);
    };
    const marks = [tree.verdict[i]];
    if (i === tree.best) marks.push("the champion");
    if (tree.survivors.has(i)) marks.push("survivor");
    row("verdict", marks.join(", "));
    row("type", tree.type[i]);
    row("score", tree.score[i] === null ? null : String(tree.score[i]));
    row("gain", tree.gain[i] === null ? null : signed(tree.gain[i]));
    row("step", tree.step[i] === null ? null : String(tree.step[i]));
    row("target", tree.target[i]);
    row("scope", tree.scope[i]);
    const first = tree.parent[i] >= 0 && !tree.indirect.has(i) ? [tree.parent[i]] : [];
    const parents = [...first, ...(tree.others.get(i) || [])];
    const above = this.#buttons(parents);
    if (tree.unshown.has(i)) above.append(` not drawn: ${tree.unshown.get(i).join(", ")}`);
    row("parents", parents.length || tree.unshown.has(i) ? above : "none");
    row("drawn at", tree.indirect.has(i) ? this.#buttons([tree.parent[i]]) : null);
    row("children", tree.children[i].length ? this.#buttons(tree.children[i]) : "none");
    row("params", tree.params[i] === null ? null : element("code", tree.params[i]));
    row("also logged", tree.more[i] === null ? null : element("code", tree.more[i]));
    this.#ancestors(i);
  }

  #buttons(nodes, most = 24) {
    const group = document.createDocumentFragment();
    for (const i of nodes.slice(0, most)) {
      const button = element("button", this.tree.id[i], { type: "button", class: this.tree.verdict[i] });
      button.onclick = () => this.select(i, true);
      group.append(button, " ");
    }
    if (nodes.length > most) group.append(`and ${nodes.length - most} more`);
    return group;
  }

  #ancestors(i) {
    const line = this.lineOf(i), most = 40, list = byId("line");
    byId("line-title").textContent = `Its line: ${line.length} modification${line.length > 1 ? "s" : ""}`;
    list.replaceChildren();
    const cut = line.length > most ? line.length - most : 0;
    if (cut) list.append(element("li", `${cut} before these`));
    for (const each of line.slice(cut)) {
      const item = element("li");
      item.append(this.#buttons([each]), this.#summary(each, false));
      list.append(item);
    }
  }

  // ------------------------------------------------------------------------------------------------ search, keys

  #search() {
    const field = byId("search");
    let found = [], turn = 0;
    field.oninput = () => {
      const wanted = field.value.trim().toLowerCase(), { tree } = this;
      const texts = (i) => [tree.id[i], tree.type[i], tree.target[i]];
      found = wanted ? [...tree.id.keys()].filter((i) => texts(i).some((t) => t && t.toLowerCase().includes(wanted))) : [];
      turn = 0;
      this.view.matches = new Set(found);
      byId("found").textContent = wanted ? `${found.length} found${found.length ? "; Enter goes to the next" : ""}` : "";
      this.view.draw();
    };
    field.onkeydown = (event) => {
      if (event.key === "Enter" && found.length) this.select(found[turn++ % found.length], true);
      if (event.key === "Escape") { field.value = ""; field.oninput(); byId("tree").focus(); }
    };
  }

  #keys() {
    const view = this.view, far = 60;
    const keys = {
      "+": () => view.zoom(1.3), "=": () => view.zoom(1.3), "-": () => view.zoom(1 / 1.3), 0: () => view.fit(),
      "/": () => byId("search").focus(), Escape: () => this.select(-1),
      ArrowLeft: () => this.#go(-1, 0, far), ArrowRight: () => this.#go(1, 0, -far),
      ArrowUp: () => this.#go(0, -1, 0, far), ArrowDown: () => this.#go(0, 1, 0, -far),
    };
    byId("tree").addEventListener("keydown", (event) => {
      if (!(event.key in keys) || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      keys[event.key]();
    });
    byId("tree").addEventListener("focus", () => {
      const { tree } = this;
      if (this.view.selected < 0 && tree.count && byId("tree").matches(":focus-visible")) this.select(tree.best < 0 ? 0 : tree.best);
    });
  }

  // To the parent, to the child that continues, or to the neighbour above or below in the same column.
  #go(across, down, panX, panY = 0) {
    const { view, tree, place } = this, i = view.selected;
    if (i < 0) return view.pan(panX, panY);
    const column = view.inColumn[place.column[i]];
    const children = tree.children[i].filter((child) => tree.parent[child] === i);
    const onward = children.find((child) => place.lane[child] === place.lane[i]);
    const to = across < 0 ? tree.parent[i] : across > 0 ? onward ?? children[0] : column[column.indexOf(i) + down];
    if (to !== undefined && to >= 0) this.select(to, true);
  }

  // ------------------------------------------------------------------------------------------------ what stands around

  #legend() {
    for (const box of document.querySelectorAll("input[data-verdict]"))
      box.onchange = () => {
        this.view.hidden[box.checked ? "delete" : "add"](box.dataset.verdict);
        this.view.draw();
      };
    const others = byId("others");
    others.checked = this.view.showsOthers;
    others.onchange = () => {
      this.view.showsOthers = others.checked;
      this.view.draw();
    };
  }

  #table() {
    const { tree } = this, body = byId("types");
    for (const { type, proposed, accepted, rate, mean_gain: mean, best_gain: best } of tree.types) {
      const row = element("tr"), name = element("th", null, { scope: "row" });
      if (type === null) name.append("no type");
      else {
        const button = element("button", type, { type: "button" });
        button.onclick = () => { byId("search").value = type; byId("search").oninput(); };
        name.append(button);
      }
      row.append(name);
      const share = rate === null ? "" : `${(100 * rate).toFixed(0)} %`;
      const gain = (value) => (value === null ? "" : signed(value, 2));
      for (const text of [proposed, accepted, share, gain(mean), gain(best)]) row.append(element("td", text));
      row.style.setProperty("--share", rate === null ? 0 : rate);
      body.append(row);
    }
  }
}

const page = new Page(treeOf(JSON.parse(byId("data").textContent)));
document.documentElement.dataset.ready = "yes";
