// Put everything to work. Without this script the page has all but the section to explore.

class State {
  constructor(found) {
    this.map = 0;
    this.view = "distance";
    this.order = "group";
    this.word = 0;
    this.checkpoint = found.last;
    this.groups = new Set(range(found.groups.length));
    this.heard = [];
  }

  set(changes, how = {}) {
    Object.assign(this, changes);
    for (const listener of this.heard) listener(changes, how);
  }
}

async function start() {
  for (const node of document.querySelectorAll(".needs-script")) node.hidden = false;
  for (const table of document.querySelectorAll("table")) sortable(table);
  for (const button of document.querySelectorAll("[data-copy]")) copying(button);
  choosingColours(byId("scheme"));
  const raw = JSON.parse(byId("findings").textContent);
  const bytes = await inflate(raw.arrays);
  const found = new Findings(raw, bytes);
  for (const [name, where] of Object.entries(raw.rows)) {
    fillWhenOpened(byId(`${name}-table`), () => JSON.parse(unpackText(bytes, where)));
  }
  const state = new State(found);
  const card = new WordCard(found, state);
  const map = new HeatMap(found, state);
  chooseMap(found, state);
  chooseGroups(found, state);
  state.heard.push((changes, { typing = false }) => {
    if ("groups" in changes) card.offer();
    card.draw(typing);
    const moved = "checkpoint" in changes && Object.keys(changes).length === 1;
    if (!moved) map.draw();
  });
  addEventListener("scheme", () => map.draw());
  map.draw();
  card.draw(false);
  document.documentElement.dataset.ready = "";
}

function chooseMap(found, state) {
  const [which, view, sorted] = ["map-name", "map-view", "map-order"].map(byId);
  const show = () => {
    const { threshold, what } = found.maps[state.map];
    view.options[1].disabled = !threshold;
    if (!threshold && state.view === "contrast") state.view = "distance";
    which.value = `${state.map}`;
    view.value = state.view;
    byId("map-what").textContent = what;
  };
  which.addEventListener("change", () => state.set({ map: Number(which.value) }));
  view.addEventListener("change", () => state.set({ view: view.value }));
  sorted.addEventListener("change", () => state.set({ order: sorted.value }));
  // First of all, so that what the others draw is possible.
  state.heard.unshift(show);
  for (const button of document.querySelectorAll("[data-map]")) {
    const place = found.maps.findIndex(({ name }) => name === button.dataset.map);
    button.hidden = place < 0;
    button.addEventListener("click", () => {
      state.set({ map: place, view: button.dataset.view });
      byId("explore").scrollIntoView();
      byId("map-cursor").focus({ preventScroll: true });
    });
  }
  show();
}

function chooseGroups(found, state) {
  const boxes = Array.from(document.querySelectorAll("#groups input"));
  const tell = () => {
    const chosen = boxes.filter((box) => box.checked).map((box) => Number(box.value));
    state.set({ groups: new Set(chosen) });
    filterWords(found, state);
  };
  for (const box of boxes) box.addEventListener("change", tell);
  byId("groups-all").addEventListener("click", () => {
    const all = boxes.every((box) => box.checked);
    for (const box of boxes) box.checked = !all;
    tell();
  });
}

// The table of all words shows the groups chosen too.
function filterWords(found, state) {
  const shown = new Set([...state.groups].map((group) => found.groups[group]));
  for (const row of document.querySelectorAll("#all-words tbody tr")) {
    row.hidden = !shown.has(row.cells[1].textContent);
  }
}

start();
