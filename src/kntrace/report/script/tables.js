// Tables that sort by a click on a heading, text to copy, and the choice of colours.

function sortable(table) {
  const head = table.tHead && table.tHead.rows[0];
  // Two rows at least, or a table that is still to be filled.
  if (!head || table.tBodies[0].rows.length === 1) return;
  for (const [place, cell] of Array.from(head.cells).entries()) {
    const button = make("button", { type: "button", class: "sort" }, ...cell.childNodes);
    cell.replaceChildren(button);
    button.addEventListener("click", () => sortBy(table, place));
  }
  remember(table);
}

function setHead(cell, text) {
  (cell.querySelector("button") || cell).textContent = text;
}

// Put other rows into a table, sorted as it was.
function fill(table, rows) {
  table.tBodies[0].replaceChildren(...rows);
  remember(table);
  const sorted = Array.from(table.tHead.rows[0].cells).findIndex((cell) => cell.ariaSort);
  if (sorted >= 0) order(table, sorted, table.tHead.rows[0].cells[sorted].ariaSort);
}

function remember(table) {
  Array.from(table.tBodies[0].rows).forEach((row, place) => (row.dataset.place = place));
}

// Up, down, and as it was.
function sortBy(table, column) {
  const cells = Array.from(table.tHead.rows[0].cells);
  const next = { ascending: "descending", descending: null };
  const now = cells[column].ariaSort;
  const wanted = now ? next[now] : "ascending";
  for (const cell of cells) cell.ariaSort = null;
  cells[column].ariaSort = wanted;
  order(table, column, wanted);
}

function order(table, column, wanted) {
  const rows = Array.from(table.tBodies[0].rows);
  if (!wanted) rows.sort((one, other) => one.dataset.place - other.dataset.place);
  else {
    const keys = new Map(rows.map((row) => [row, sortKey(row.cells[column])]));
    const sign = wanted === "ascending" ? 1 : -1;
    rows.sort((one, other) => compared(keys.get(one), keys.get(other), sign));
  }
  table.tBodies[0].append(...rows);
}

// The first number of a cell, or its text; a dash is nothing, and goes last.
function sortKey(cell) {
  const text = cell.textContent.trim();
  if (text === DASH || text === "") return null;
  if (cell.classList.contains("text")) return text;
  const plain = text.replace(/,(?=\d{3})/g, "").replace(/−/g, "-");
  const found = plain.match(/-?\d+(\.\d+)?(e[-+]?\d+)?/i);
  if (!found) return text;
  const raised = plain.match(/× 10([⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)/);
  const power = raised
    ? Number(raised[1].replace(/./g, (sign) => "-0123456789"["⁻⁰¹²³⁴⁵⁶⁷⁸⁹".indexOf(sign)]))
    : 0;
  return Number(found[0]) * 10 ** power;
}

function compared(one, other, sign) {
  if (one === null || other === null) return (one === null) - (other === null);
  if (typeof one === "number" && typeof other === "number") return sign * (one - other);
  return sign * `${one}`.localeCompare(`${other}`, undefined, { numeric: true });
}

// Rows of a long table come when its part of the page is opened.
function fillWhenOpened(table, read) {
  const part = table.closest("details");
  const fillOnce = () => {
    if (!part.open) return;
    part.removeEventListener("toggle", fillOnce);
    const [first] = table.tBodies[0].rows;
    fill(table, read().map((cells) => rowOf(first, cells)));
  };
  part.addEventListener("toggle", fillOnce);
}

// A row that looks like the first one.
function rowOf(like, cells) {
  const made = cells.map((text, place) => {
    const { tagName, className } = like.cells[place];
    const more = tagName === "TH" ? { scope: "row" } : {};
    return make(tagName, { dir: "auto", class: className, ...more }, text);
  });
  return make("tr", {}, ...made);
}

// Copy the text of an element; where the browser forbids that, select it.
function copying(button) {
  const source = byId(button.dataset.copy);
  const says = button.textContent;
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(source.innerText.trim());
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(source);
      button.textContent = "Selected: copy it with Ctrl+C";
    }
    setTimeout(() => (button.textContent = says), 2500);
  });
}

function choosingColours(button) {
  const dark = () =>
    document.documentElement.dataset.scheme
      ? document.documentElement.dataset.scheme === "dark"
      : matchMedia("(prefers-color-scheme: dark)").matches;
  const show = () => (button.textContent = dark() ? "Light" : "Dark");
  button.addEventListener("click", () => {
    document.documentElement.dataset.scheme = dark() ? "light" : "dark";
    show();
    dispatchEvent(new Event("scheme"));
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", show);
  show();
}
