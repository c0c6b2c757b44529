// Elements, numbers and arrays. Whatever comes from the study is set as text, never as HTML.

const SVG = "http://www.w3.org/2000/svg";
const DASH = "\u2013";

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function shape(tag, attributes = {}, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

// A stranger's word may be written from right to left: it must not turn its surroundings round.
function isolated(text) {
  return make("bdi", {}, text);
}

function byId(id) {
  return document.getElementById(id);
}

const KINDS = { f4: Float32Array, i4: Int32Array, i2: Int16Array, u2: Uint16Array };

// All arrays lie in one compressed text. It is unpacked here, and nothing is asked for.
async function inflate(text) {
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < bytes.length; i += 1) bytes[i] = binary.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

function unpackText(bytes, { at, count }) {
  return new TextDecoder().decode(bytes.subarray(at, at + count));
}

// The bytes of an array lie apart by their place in a number.
function unpack(bytes, { at, count, kind }) {
  const Kind = KINDS[kind];
  const size = Kind.BYTES_PER_ELEMENT;
  const together = new Uint8Array(count * size);
  for (let place = 0; place < size; place += 1) {
    const start = at + place * count;
    for (let i = 0; i < count; i += 1) together[i * size + place] = bytes[start + i];
  }
  return new Kind(together.buffer);
}

// Three digits; very small and very large numbers as a multiple of a power of ten.
function number(value) {
  if (!Number.isFinite(value)) return DASH;
  const size = Math.abs(value);
  if (size === 0) return "0";
  if (size >= 1e-4 && size < 1e6) {
    return minus(size >= 100 ? value.toFixed(0) : `${Number(value.toPrecision(3))}`);
  }
  const power = Math.floor(Math.log10(size));
  const raised = `${power}`.replace(/[-0-9]/g, (sign) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(sign)]);
  return minus(`${(value / 10 ** power).toFixed(1)} × 10${raised}`);
}

function minus(text) {
  return text.replace("-", "−");
}

function count(value) {
  return value.toLocaleString("en");
}

function range(length) {
  return Array.from({ length }, (_, place) => place);
}

// How many of the numbers, which ascend, are below the value.
function below(sorted, value) {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sorted[middle] < value) low = middle + 1;
    else high = middle;
  }
  return low;
}
