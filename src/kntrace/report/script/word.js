// The card of one word: when it is learnt, its neurons and how they form, its nearest words.

const NEAREST = 10;
const LINES = 5;
const LINE_COLOURS = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00"];

class WordCard {
  constructor(found, state) {
    this.found = found;
    this.state = state;
    this.input = byId("word");
    this.status = byId("word-status");
    this.slider = byId("checkpoint");
    this.slider.max = `${found.last}`;
    this.slider.value = `${found.last}`;
    this.listen();
    this.offer();
  }

  listen() {
    const { state, input } = this;
    // A choice from the list changes the text at once; what is typed counts when it is a word.
    input.addEventListener("input", () => this.choose(input.value, false));
    input.addEventListener("change", () => this.choose(input.value, true));
    input.addEventListener("focus", () => input.select());
    byId("word-before").addEventListener("click", () => this.step(-1));
    byId("word-after").addEventListener("click", () => this.step(1));
    this.slider.addEventListener("input", () => {
      state.set({ checkpoint: Number(this.slider.value) });
    });
  }

  get offered() {
    const { found, state } = this;
    return range(found.words.length).filter((word) => state.groups.has(found.group[word]));
  }

  offer() {
    const options = this.offered.map((word) =>
      make("option", { value: this.found.words[word], label: this.found.groups[this.found.group[word]] }),
    );
    byId("word-list").replaceChildren(...options);
  }

  choose(text, told) {
    const { words } = this.found;
    const plain = (name) => name.normalize("NFC").trim().toLocaleLowerCase();
    const exact = words.indexOf(text);
    const word = exact >= 0 ? exact : words.findIndex((name) => plain(name) === plain(text));
    if (word >= 0) {
      this.status.textContent = "";
      if (word !== this.state.word) this.state.set({ word }, { typing: !told });
      return;
    }
    if (!told) return;
    const near = words.filter((name) => plain(text) && plain(name).includes(plain(text)));
    const hint = near.length ? ` Words with these letters: ${near.slice(0, 5).join(", ")}.` : "";
    this.status.textContent = `No word “${text}” in this study.${hint}`;
  }

  step(by) {
    const { offered, state } = this;
    if (!offered.length) return;
    const place = offered.indexOf(state.word) + (offered.includes(state.word) || by < 0 ? by : 1);
    state.set({ word: offered[(place + offered.length) % offered.length] });
  }

  draw(typing) {
    const { found, state } = this;
    const { word, checkpoint } = state;
    if (!typing) {
      this.input.value = found.words[word];
      this.status.textContent = "";
    }
    const name = found.checkpoints[checkpoint];
    this.slider.setAttribute("aria-valuetext", name);
    byId("checkpoint-name").textContent = name;
    byId("word-name").replaceChildren(isolated(found.words[word]));
    byId("word-says").replaceChildren(...this.says());
    byId("word-unknown").hidden = !found.unknownWords.has(word);
    this.neurons = found.neurons(word);
    byId("word-curve").replaceChildren(this.probability());
    byId("word-formation").replaceChildren(this.formation());
    this.drawLayers();
    this.drawNeurons();
    this.drawNearest();
  }

  says() {
    const { found, state } = this;
    const curve = found.curve(state.word);
    const below = curve.map((value) => value < 0.5).lastIndexOf(true);
    const since =
      below === found.last
        ? "does not stay at one half or more"
        : `stays at one half or more from ${found.checkpoints[below + 1]} on`;
    return [
      "Group ",
      isolated(found.groups[found.group[state.word]]),
      `. P(answer) is ${number(curve[found.last])} at the end, and ${since}. At ` +
        `${found.checkpoints[state.checkpoint]} it is ${number(curve[state.checkpoint])}.`,
    ];
  }

  probability() {
    const { found, state } = this;
    const { word, checkpoint } = state;
    const group = found.group[word];
    const series = [
      { values: found.meanCurve(range(found.words.length)), kind: "all", name: "mean of all words" },
      {
        values: found.meanCurve(found.members(group)),
        kind: "of-group",
        colour: found.looks[group],
        name: `mean of ${found.groups[group]}`,
      },
      { values: found.curve(word), kind: "own", name: found.words[word] },
    ];
    const title =
      `P(answer) of ${found.words[word]} over the checkpoints, from ` +
      `${number(series[2].values[0])} to ${number(series[2].values[found.last])}`;
    return curves(found, { title, series, high: 1, checkpoint });
  }

  formation() {
    const { found, state, neurons } = this;
    const series = neurons
      .map(({ name, scores }, place) =>
        place < LINES
          ? { values: scores, kind: "first", colour: LINE_COLOURS[place], name }
          : { values: scores, kind: "rest", name },
      )
      .reverse();
    const lists = neurons.map(({ scores }) => scores);
    const title =
      `Scores over the checkpoints of the ${neurons.length} strongest neurons of ` +
      `${found.words[state.word]}; the table below has their numbers`;
    const [low, high] = [smallest(lists), largest(lists)];
    return curves(found, { title, series, low, high, checkpoint: state.checkpoint });
  }

  drawLayers() {
    const { found, state } = this;
    byId("layers-part").hidden = !found.layers;
    if (!found.layers) return;
    const all = range(found.last + 1).map((place) => found.profile(state.word, place));
    const title =
      `Sum of the scores of the knowledge neurons of ${found.words[state.word]} by layer at ` +
      `${found.checkpoints[state.checkpoint]}: ` +
      all[state.checkpoint].map((value, layer) => `layer ${layer} ${number(value)}`).join(", ");
    const picture = bars(title, all[state.checkpoint], smallest(all), largest(all));
    byId("word-layers").replaceChildren(picture);
  }

  drawNeurons() {
    const { found, state, neurons } = this;
    const heads = byId("neurons-table").tHead.rows[0].cells;
    setHead(heads[2], `at ${found.checkpoints[state.checkpoint]}`);
    const rows = neurons.map(({ name, scores, formed, others }, place) => {
      const colour = make("span", { class: `key key-${place < LINES ? place : "rest"}` });
      const row = make(
        "tr",
        {},
        make("th", { scope: "row", class: "text" }, colour, name),
        make("td", {}, number(scores[found.last])),
        make("td", {}, number(scores[state.checkpoint])),
        make("td", {}, this.half(formed)),
        make("td", {}, count(others)),
      );
      row.dataset.name = name;
      row.addEventListener("pointerenter", () => this.mark(name));
      row.addEventListener("pointerleave", () => this.mark(null));
      return row;
    });
    fill(byId("neurons-table"), rows);
  }

  // The checkpoint by which a neuron has half of its last score.
  half(formed) {
    return Number.isNaN(formed) ? DASH : this.found.checkpoints[Math.ceil(formed - 1e-6)];
  }

  mark(name) {
    for (const path of byId("word-formation").querySelectorAll(".curve")) {
      path.classList.toggle("marked", path.dataset.name === name);
    }
  }

  drawNearest() {
    const { found, state } = this;
    const map = found.maps[state.map].open();
    const near = map.nearest(state.word, this.offered).slice(0, NEAREST);
    const rows = near.map((other) => {
      const pick = make("button", { type: "button", class: "plain" }, isolated(found.words[other]));
      pick.addEventListener("click", () => state.set({ word: other }));
      const ratio = 2 ** map.contrast(state.word, other);
      return make(
        "tr",
        found.group[other] === found.group[state.word] ? { class: "marked" } : {},
        make("th", { scope: "row", class: "text" }, pick),
        make("td", { class: "text", dir: "auto" }, found.groups[found.group[other]]),
        make("td", {}, number(map.between(state.word, other))),
        make("td", {}, Number.isNaN(ratio) ? DASH : `× ${number(ratio)}`),
        make("td", {}, `${map.rankFrom(state.word, other)}`),
      );
    });
    byId("nearest-map").textContent = map.name;
    fill(byId("nearest-table"), rows);
  }
}
