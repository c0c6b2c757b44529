// Small charts: curves over the checkpoints, and bars by layer.

const WIDE = 440;
const HIGH = 190;
const EDGE = { left: 50, right: 10, top: 10, bottom: 34 };

function frame(title, low, high) {
  const across = WIDE - EDGE.left - EDGE.right;
  const down = HIGH - EDGE.top - EDGE.bottom;
  const y = (value) => EDGE.top + ((high - value) / (high - low || 1)) * down;
  const picture = shape("svg", {
    viewBox: `0 0 ${WIDE} ${HIGH}`,
    role: "img",
    class: "chart",
    "aria-label": title,
  });
  // The lowest one only where it is clear of zero.
  const ticks = low < -high / 4 ? [low, 0, high] : [0, high / 2, high];
  for (const value of ticks) {
    picture.append(
      line(EDGE.left, y(value), WIDE - EDGE.right, y(value), value === 0 ? "axis" : "grid"),
      label(EDGE.left - 6, y(value) + 4, number(value), "end"),
    );
  }
  return { picture, x: (place) => EDGE.left + place * across, y };
}

function line(x1, y1, x2, y2, kind) {
  return shape("line", { x1, y1, x2, y2, class: kind });
}

function label(x, y, text, anchor = "middle") {
  return shape("text", { x, y, "text-anchor": anchor }, text);
}

// Curves over the checkpoints; a line marks the checkpoint chosen.
function curves(found, { title, series, low = 0, high, checkpoint }) {
  const { picture, x, y } = frame(title, low, high);
  const at = found.places;
  picture.append(line(x(at[checkpoint]), EDGE.top, x(at[checkpoint]), HIGH - EDGE.bottom, "mark"));
  for (const { values, kind, colour, name } of series) {
    const points = values.map((value, place) => `${x(at[place]).toFixed(1)},${y(value).toFixed(1)}`);
    const path = shape("polyline", { points: points.join(" "), class: `curve ${kind}` });
    if (colour) path.setAttribute("stroke", colour);
    if (name) path.dataset.name = name;
    path.append(shape("title", {}, name || ""));
    picture.append(path);
    if (values.length === 1) {
      picture.append(shape("circle", { cx: x(at[0]), cy: y(values[0]), r: 3, class: "grid" }));
    }
  }
  const under = HIGH - EDGE.bottom + 14;
  for (const place of new Set([0, found.last])) {
    picture.append(
      label(x(at[place]), under, short(found.checkpoints[place]), place ? "end" : "start"),
    );
  }
  picture.append(label(x(0.5), HIGH - 4, found.axis));
  return picture;
}

// One bar a layer, from zero.
function bars(title, values, low, high) {
  const { picture, x, y } = frame(title, low, high);
  const wide = 1 / values.length;
  values.forEach((value, layer) => {
    const [top, bottom] = [y(Math.max(value, 0)), y(Math.min(value, 0))];
    const bar = shape("rect", {
      x: x((layer + 0.12) * wide),
      y: top,
      width: x(wide * 0.76) - x(0),
      height: Math.max(bottom - top, 0.5),
      class: "bar",
    });
    bar.append(shape("title", {}, `layer ${layer}: ${number(value)}`));
    picture.append(bar);
    if (layer % Math.ceil(values.length / 12) === 0) {
      picture.append(label(x((layer + 0.5) * wide), HIGH - EDGE.bottom + 14, `${layer}`));
    }
  });
  picture.append(label(x(0.5), HIGH - 4, "layer"));
  return picture;
}

function short(text) {
  const letters = Array.from(text);
  return letters.length > 18 ? `${letters.slice(0, 17).join("")}…` : text;
}

function largest(lists) {
  return Math.max(1e-12, ...lists.map((values) => Math.max(...values)));
}

function smallest(lists) {
  return Math.min(0, ...lists.map((values) => Math.min(...values)));
}
