// The heat map of all pairs of the words shown, drawn on a canvas; a second one has the cursor.

const NO_VALUE = [201, 201, 201];
const LABEL_ROOM = 9;
const MOST_NAMED = 60;
const LARGEST = 720;

function rgb(hex) {
  return [1, 3, 5].map((place) => parseInt(hex.slice(place, place + 2), 16));
}

class HeatMap {
  constructor(found, state) {
    this.found = found;
    this.state = state;
    this.box = byId("map");
    this.scroller = byId("map-scroll");
    this.canvas = byId("map-cells");
    this.over = byId("map-cursor");
    this.tip = byId("map-tip");
    this.status = byId("map-status");
    this.cursor = null;
    this.tables = {
      distance: found.colours.distance.map(rgb),
      contrast: found.colours.contrast.map(rgb),
    };
    this.listen();
  }

  listen() {
    this.over.addEventListener("pointermove", (event) => this.point(event));
    this.over.addEventListener("pointerleave", () => this.leave());
    this.over.addEventListener("click", (event) => {
      this.point(event);
      if (this.cursor) this.state.set({ word: this.shown[this.cursor[0]] });
    });
    this.over.addEventListener("keydown", (event) => this.press(event));
    this.over.addEventListener("blur", () => this.leave());
    this.scroller.addEventListener("scroll", () => this.placeTip());
    new ResizeObserver(() => this.draw()).observe(this.box);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  get map() {
    return this.found.maps[this.state.map].open();
  }

  // The words of the groups chosen, in the order chosen.
  order() {
    const { groups, word, order } = this.state;
    const { found, map } = this;
    const shown = range(found.words.length).filter((place) => groups.has(found.group[place]));
    if (order === "time") {
      const times = found.words.map((_, place) => found.learningTime(place));
      shown.sort((one, other) => times[other] - times[one]);
    }
    if (order === "near") return [word, ...map.nearest(word, shown)];
    return shown;
  }

  draw() {
    const width = this.box.clientWidth;
    if (!width) return;
    this.shown = this.order();
    this.layOut(width);
    for (const canvas of [this.canvas, this.over]) {
      const ratio = window.devicePixelRatio || 1;
      canvas.width = Math.round(this.width * ratio);
      canvas.height = Math.round(this.height * ratio);
      canvas.style.width = `${this.width}px`;
      canvas.style.height = `${this.height}px`;
      canvas.getContext("2d").scale(ratio, ratio);
    }
    const context = this.canvas.getContext("2d");
    const { left, top, side } = this;
    context.imageSmoothingEnabled = false;
    if (this.shown.length) context.drawImage(this.cells(), left, top, side, side);
    this.drawGroups(context);
    if (this.cell >= LABEL_ROOM) this.drawLabels(context);
    this.showScale();
    this.drawCursor();
  }

  // On a narrow screen the map of not too many words is as wide as its names need, and scrolls.
  layOut(room) {
    const many = Math.max(this.shown.length, 1);
    const named = many <= MOST_NAMED || Math.min(room - 200, LARGEST) / many >= LABEL_ROOM;
    this.left = named ? 84 : 2;
    const width = named ? Math.max(room, many * LABEL_ROOM + 84 + 110) : room;
    this.right = this.state.order === "group" && width > 480 ? 110 : 12;
    this.top = 12;
    this.side = Math.max(40, Math.min(width - this.left - this.right, LARGEST, many * 34));
    this.cell = this.side / many;
    this.width = this.left + this.side + this.right;
    this.height = this.top + this.side + (named ? 88 : 4);
  }

  // One dot a cell, to be enlarged.
  cells() {
    const { map, shown } = this;
    const { view } = this.state;
    const table = this.tables[view];
    const many = shown.length;
    const image = new ImageData(many, many);
    for (let row = 0; row < many; row += 1) {
      for (let column = 0; column < many; column += 1) {
        const value = this.value(map, shown[row], shown[column]);
        const place = map.place(value, view);
        const step = Math.round(Math.min(Math.max(place, 0), 1) * (table.length - 1));
        const colour = Number.isNaN(place) ? NO_VALUE : table[step];
        image.data.set([...colour, 255], 4 * (row * many + column));
      }
    }
    const small = make("canvas", { width: many, height: many });
    small.getContext("2d").putImageData(image, 0, 0);
    return small;
  }

  value(map, row, column) {
    return this.state.view === "contrast" ? map.contrast(row, column) : map.between(row, column);
  }

  get ink() {
    return getComputedStyle(this.canvas).color;
  }

  drawGroups(context) {
    const { found, shown, left, top, side, cell } = this;
    context.font = this.font(13);
    context.textBaseline = "middle";
    context.textAlign = "left";
    let start = 0;
    while (start < shown.length) {
      const group = found.group[shown[start]];
      let stop = start;
      while (stop < shown.length && found.group[shown[stop]] === group) stop += 1;
      const [from, size] = [start * cell, (stop - start) * cell];
      context.fillStyle = found.looks[group];
      context.fillRect(left + from, top - 7, size, 4);
      context.fillRect(left + side + 3, top + from, 4, size);
      if (this.state.order === "group") {
        context.fillStyle = "#fff";
        if (start && cell > 3) {
          context.fillRect(left, top + from - 0.75, side, 1.5);
          context.fillRect(left + from - 0.75, top, 1.5, side);
        }
        context.fillStyle = this.ink;
        if (this.right > 100 && size >= 13) {
          const name = this.fitted(context, found.groups[group], this.right - 14);
          context.fillText(name, left + side + 12, top + from + size / 2);
        }
      }
      start = stop;
    }
  }

  drawLabels(context) {
    const { found, shown, left, top, side, cell } = this;
    const size = Math.min(13, cell * 0.95);
    context.fillStyle = this.ink;
    context.textAlign = "right";
    context.textBaseline = "middle";
    shown.forEach((word, place) => {
      context.font = this.font(size, word === this.state.word ? 700 : 400);
      const name = this.fitted(context, found.words[word], 78);
      const middle = (place + 0.5) * cell;
      context.fillText(name, left - 5, top + middle);
      context.save();
      context.translate(left + middle, top + side + 5);
      context.rotate(-Math.PI / 2);
      context.fillText(name, 0, 0);
      context.restore();
    });
  }

  font(size, weight = 400) {
    return `${weight} ${size}px ${getComputedStyle(document.body).fontFamily}`;
  }

  fitted(context, text, room) {
    if (context.measureText(text).width <= room) return text;
    const letters = Array.from(text);
    while (letters.length && context.measureText(`${letters.join("")}…`).width > room) letters.pop();
    return `${letters.join("")}…`;
  }

  showScale() {
    const { map } = this;
    const contrast = this.state.view === "contrast";
    const colours = this.found.colours[this.state.view];
    byId("scale-bar").style.backgroundImage = `linear-gradient(to right, ${colours.join(", ")})`;
    const factor = 2 ** map.limit;
    byId("scale-low").textContent = contrast ? `nearer, ÷ ${number(factor)}` : number(map.low);
    byId("scale-high").textContent = contrast ? `farther, × ${number(factor)}` : number(map.high);
    const unit = map.unit ? ` in ${map.unit}` : "";
    byId("scale-name").textContent = contrast
      ? `${map.name}: distance ÷ the row's mean distance to its own group`
      : `${map.name}: distance${unit}${map.log ? ", log scale" : ""}; dark is near`;
  }

  point(event) {
    const at = this.over.getBoundingClientRect();
    const column = Math.floor((event.clientX - at.left - this.left) / this.cell);
    const row = Math.floor((event.clientY - at.top - this.top) / this.cell);
    const inside = (place) => place >= 0 && place < this.shown.length;
    if (!inside(row) || !inside(column)) return this.leave();
    return this.moveTo(row, column);
  }

  press(event) {
    const last = this.shown.length - 1;
    const [row, column] = this.cursor || [0, Math.min(1, last)];
    const moves = {
      ArrowUp: [row - 1, column],
      ArrowDown: [row + 1, column],
      ArrowLeft: [row, column - 1],
      ArrowRight: [row, column + 1],
      Home: [row, 0],
      End: [row, last],
      PageUp: [0, column],
      PageDown: [last, column],
    };
    if (event.key === "Escape") this.leave();
    else if (event.key === "Enter" || event.key === " ") this.state.set({ word: this.shown[row] });
    else if (!moves[event.key]) return;
    event.preventDefault();
    if (!moves[event.key]) return;
    const [down, across] = moves[event.key].map((place) => Math.min(Math.max(place, 0), last));
    this.moveTo(down, across);
    this.bringIntoView(across);
    this.status.textContent = this.say().join(". ");
  }

  moveTo(row, column) {
    this.cursor = [row, column];
    this.drawCursor();
    const [title, ...lines] = this.say();
    this.tip.replaceChildren(
      make("strong", { dir: "auto" }, title),
      ...lines.map((line) => make("span", {}, line)),
    );
    this.tip.hidden = false;
    this.placeTip();
  }

  // Beside the cell, as far as it is in view.
  placeTip() {
    if (!this.cursor) return;
    const [row, column] = this.cursor;
    const x = this.left + (column + 1) * this.cell + 10;
    const y = this.top + (row + 1) * this.cell + 10;
    const room = this.box.clientWidth - this.tip.offsetWidth - 4;
    this.tip.style.left = `${Math.max(0, Math.min(x - this.scroller.scrollLeft, room))}px`;
    this.tip.style.top = `${y}px`;
  }

  // On a narrow screen the map scrolls, and the cell that the keys move to comes along.
  bringIntoView(column) {
    const x = this.left + column * this.cell;
    const { scrollLeft, clientWidth } = this.scroller;
    if (x < scrollLeft) this.scroller.scrollLeft = x;
    const over = x + this.cell - clientWidth;
    if (over > scrollLeft) this.scroller.scrollLeft = over;
  }

  leave() {
    this.cursor = null;
    this.tip.hidden = true;
    this.drawCursor();
  }

  // Both words, their distance, and its rank.
  say() {
    const { found, map } = this;
    const [one, other] = this.cursor.map((place) => this.shown[place]);
    const name = (word) => `${found.nameOf(word)} (${found.groupOf(word)})`;
    if (one === other) return [name(one), "the word itself: no data"];
    const pairs = count(map.values.length);
    const lines = [
      `${name(one)} – ${name(other)}`,
      `${map.name} ${number(map.between(one, other))}${map.unit ? ` ${map.unit}` : ""}`,
      `rank ${count(map.rankOfPair(one, other))} of ${pairs} pairs, 1 being the nearest`,
      `from ${found.nameOf(one)}: rank ${map.rankFrom(one, other)} of ${map.size - 1}`,
    ];
    const ratio = map.contrast(one, other);
    if (Number.isNaN(ratio)) return lines;
    const factor = number(2 ** ratio);
    return [...lines, `${factor} times the mean distance of ${found.nameOf(one)} to its own group`];
  }

  drawCursor() {
    const context = this.over.getContext("2d");
    context.clearRect(0, 0, this.width, this.height);
    if (!this.cursor) return;
    const { left, top, side, cell } = this;
    const [row, column] = this.cursor;
    context.strokeStyle = this.ink;
    context.lineWidth = 1;
    context.globalAlpha = 0.55;
    context.strokeRect(left, top + row * cell, side, cell);
    context.strokeRect(left + column * cell, top, cell, side);
    context.globalAlpha = 1;
    context.lineWidth = 2;
    context.strokeRect(left + column * cell, top + row * cell, cell, cell);
  }
}
