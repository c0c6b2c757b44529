// What the page carries: words, distances, formation. Arrays are unpacked when first wanted.

class Distances {
  constructor(raw, words, bytes) {
    Object.assign(this, raw);
    this.size = words;
    this.packed = raw.values;
    this.bytes = bytes;
    this.values = null;
  }

  open() {
    if (this.values === null) {
      this.values = unpack(this.bytes, this.packed);
      this.sorted = Float32Array.from(this.values).sort();
      this.limit = this.contrastLimit();
    }
    return this;
  }

  // The upper triangle lies row by row.
  between(one, other) {
    if (one === other) return NaN;
    const [i, j] = one < other ? [one, other] : [other, one];
    return this.values[(i * (2 * this.size - i - 1)) / 2 + j - i - 1];
  }

  // By which factor, as its logarithm to the base 2, a word is farther than the row's own group.
  contrast(row, column) {
    const mean = this.threshold && this.threshold[row];
    if (mean === null || row === column) return NaN;
    const distance = this.between(row, column);
    return distance === mean ? 0 : Math.log2(distance / mean);
  }

  // The colours of the contrast span the bulk of the cells.
  contrastLimit() {
    if (!this.threshold) return 1;
    const seen = [];
    for (let i = 0; i < this.size; i += 1) {
      for (let j = 0; j < this.size; j += 1) {
        const ratio = Math.abs(this.contrast(i, j));
        if (Number.isFinite(ratio)) seen.push(ratio);
      }
    }
    const bulk = Float32Array.from(seen).sort()[Math.floor(0.95 * (seen.length - 1))] || 0;
    return Math.max(0.25, Math.ceil(bulk * 4 - 1e-6) / 4);
  }

  // 1 for the nearest of all pairs.
  rankOfPair(one, other) {
    return below(this.sorted, this.between(one, other)) + 1;
  }

  // 1 for the word that is nearest to `from`.
  rankFrom(from, to) {
    const distance = this.between(from, to);
    let rank = 1;
    for (let i = 0; i < this.size; i += 1) {
      if (i !== from && this.between(from, i) < distance) rank += 1;
    }
    return rank;
  }

  nearest(from, among) {
    return among
      .filter((word) => word !== from)
      .sort((one, other) => this.between(from, one) - this.between(from, other));
  }

  // Where a colour lies between the ends of the scale, 0 to 1.
  place(value, view) {
    if (view === "contrast") return (value / this.limit + 1) / 2;
    if (this.log) return Math.log(value / this.low) / Math.log(this.high / this.low || 1);
    return (value - this.low) / (this.high - this.low || 1);
  }
}

class Findings {
  constructor(raw, bytes) {
    Object.assign(this, raw);
    const words = raw.words.length;
    const { kept, neuron, others, formed, scores, scale } = raw.formation;
    this.last = raw.checkpoints.length - 1;
    this.curves = unpack(bytes, raw.probability);
    this.kept = kept;
    this.neuronIds = unpack(bytes, neuron);
    this.otherWords = unpack(bytes, others);
    this.formedAt = unpack(bytes, formed);
    this.scores = unpack(bytes, scores);
    this.scale = unpack(bytes, scale);
    if (raw.layers) {
      this.layerScores = unpack(bytes, raw.layers.scores);
      this.layerScale = unpack(bytes, raw.layers.scale);
    }
    this.maps = raw.maps.map((map) => new Distances(map, words, bytes));
    this.unknownWords = new Set(raw.unknown);
  }

  // Names as parts of a sentence: set apart, since they may be written from right to left.
  nameOf(word) {
    return `\u2068${this.words[word]}\u2069`;
  }

  groupOf(word) {
    return `\u2068${this.groups[this.group[word]]}\u2069`;
  }

  curve(word) {
    const many = this.last + 1;
    return Array.from(this.curves.subarray(word * many, (word + 1) * many));
  }

  // The mean curve of some words.
  meanCurve(words) {
    const sum = new Array(this.last + 1).fill(0);
    for (const word of words) this.curve(word).forEach((value, place) => (sum[place] += value));
    return sum.map((value) => value / words.length);
  }

  // Mean of P(answer) over the checkpoints: the earlier a word is learnt, the larger.
  learningTime(word) {
    return this.curve(word).reduce((sum, value) => sum + value, 0) / (this.last + 1);
  }

  members(group) {
    return range(this.words.length).filter((word) => this.group[word] === group);
  }

  neurons(word) {
    const found = [];
    const many = this.last + 1;
    for (let rank = 0; rank < this.kept; rank += 1) {
      const row = word * this.kept + rank;
      const layer = this.neuronIds[2 * row];
      if (layer < 0) continue;
      const whole = this.scores.subarray(row * many, (row + 1) * many);
      found.push({
        layer,
        name: `${layer}.${this.neuronIds[2 * row + 1]}`,
        others: this.otherWords[row],
        formed: this.formedAt[row],
        scores: Array.from(whole, (score) => (score / 32767) * this.scale[word]),
      });
    }
    return found;
  }

  // The sum of the scores of a word's neurons in every layer.
  profile(word, checkpoint) {
    const { count: layers } = this.layers;
    const many = this.last + 1;
    return range(layers).map(
      (layer) =>
        (this.layerScores[(word * layers + layer) * many + checkpoint] / 32767) *
        this.layerScale[word],
    );
  }
}
