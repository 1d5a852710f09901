// What the explorers compute: the library's pooling, regions and scores, in plain JavaScript.
//
// Every function repeats one of cxrlib.pooling, cxrlib.metrics.regions or
// cxrlib.metrics.conventions; tests/test_book_explorers.py compares them in a browser. Maps and frames
// are Float32Arrays, row by row, so that comparisons fall as they do in the library.
"use strict";

(() => {
  const ROUNDING = 1e-6; // a difference below this share of the maximum is none
  const SLACK = 2e-4; // corners that should be whole may come out a little below

  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

  function unpack(text) {
    const raw = bytes(text);
    return Float32Array.from({ length: raw.length / 2 }, (_, i) => (raw[2 * i] + 256 * raw[2 * i + 1]) / 65535);
  }

  function bits(text) {
    const raw = bytes(text);
    return Uint8Array.from({ length: raw.length * 8 }, (_, i) => (raw[i >> 3] >> (i & 7)) & 1);
  }

  const sum = (values) => values.reduce((total, value) => total + value, 0);
  const highest = (values) => values.reduce((one, other) => Math.max(one, other), -Infinity);
  const lowest = (values) => values.reduce((one, other) => Math.min(one, other), Infinity);

  // ---- pooling --------------------------------------------------------------------------------

  function lse(S, r) {
    const peak = highest(S);
    if (r === Infinity) return peak;
    if (r === 0) return sum(S) / S.length;
    return peak + Math.log1p(sum(Float64Array.from(S, (s) => Math.expm1(r * (s - peak)))) / S.length) / r;
  }

  // The gradient of lse, softmax(r S); tied maxima share it.
  function gradient(S, r) {
    const peak = highest(S);
    const raw = Float64Array.from(S, (s) => (s === peak ? 1 : Math.exp(r * (s - peak))));
    const total = sum(raw);
    return raw.map((value) => value / total);
  }

  // ---- frames ---------------------------------------------------------------------------------

  // For each pixel of a line the two cells that it lies between, and the share of the second.
  function taps(cells, size, aligned) {
    return Array.from({ length: size }, (_, i) => {
      const at = aligned ? (i * (cells - 1)) / (size - 1) : ((i + 0.5) * cells) / size - 0.5;
      const held = Math.min(Math.max(at, 0), cells - 1);
      const first = Math.min(Math.floor(held), Math.max(cells - 2, 0));
      return [first, Math.min(first + 1, cells - 1), held - first];
    });
  }

  // Bilinear interpolation of a map to size x size pixels.
  function upsample(map, size, aligned = false) {
    const cells = Math.sqrt(map.length);
    const line = taps(cells, size, aligned);
    const frame = new Float32Array(size * size);
    line.forEach(([top, bottom, down], y) =>
      line.forEach(([left, right, across], x) => {
        const above = map[top * cells + left] * (1 - across) + map[top * cells + right] * across;
        const below = map[bottom * cells + left] * (1 - across) + map[bottom * cells + right] * across;
        frame[y * size + x] = above * (1 - down) + below * down;
      }),
    );
    return frame;
  }

  function rescale(frame) {
    const low = lowest(frame);
    const spread = Math.fround(highest(frame) - low);
    return frame.map((value) => Math.fround(value - low) / spread);
  }

  // ---- scores of the whole map ----------------------------------------------------------------

  function pointing(frame, boxes, size) {
    const level = highest(frame) * (1 - ROUNDING);
    let all = 0;
    let inside = 0;
    frame.forEach((value, i) => {
      if (value < level) return;
      const [x, y] = [(i % size) + 0.5, Math.floor(i / size) + 0.5];
      all += 1;
      inside += boxes.some(([x0, y0, x1, y1]) => x0 <= x && x < x1 && y0 <= y && y < y1);
    });
    return inside / all;
  }

  function continuousDice(frame, coverage) {
    const common = sum(Float64Array.from(frame, (value, i) => value * coverage[i]));
    return (2 * common) / (sum(Float64Array.from(frame)) + sum(coverage));
  }

  // ---- regions and boxes ----------------------------------------------------------------------

  // Connected pixels of equal value: [{pixels, box}], in the order in which rows are read.
  function parts(mask, size, value, diagonal) {
    const steps = diagonal ? [-1, 0, 1] : [0];
    const near = [[-1, 0], [1, 0], ...steps.map((dx) => [dx, -1]), ...steps.map((dx) => [dx, 1])];
    const seen = new Uint8Array(mask.length);
    const found = [];
    for (let start = 0; start < mask.length; start++) {
      if (mask[start] !== value || seen[start]) continue;
      const pixels = [start];
      let [left, top, right, bottom] = [size, size, 0, 0];
      seen[start] = 1;
      for (let next = 0; next < pixels.length; next++) {
        const x = pixels[next] % size;
        const y = (pixels[next] - x) / size;
        [left, right] = [Math.min(left, x), Math.max(right, x + 1)];
        [top, bottom] = [Math.min(top, y), Math.max(bottom, y + 1)];
        for (const [dx, dy] of near) {
          const place = pixels[next] + dy * size + dx;
          if (x + dx < 0 || x + dx >= size || y + dy < 0 || y + dy >= size) continue;
          if (mask[place] !== value || seen[place]) continue;
          seen[place] = 1;
          pixels.push(place);
        }
      }
      found.push({ pixels, box: [left, top, right, bottom] });
    }
    return found;
  }

  // What cv2.contourArea says of a region's outer contour, which runs through centres of pixels:
  // holes are filled; of each square of four centres the whole is enclosed, or half of it.
  function enclosed({ pixels, box: [x0, y0, x1, y1] }, size) {
    const side = Math.max(x1 - x0, y1 - y0) + 2; // with an empty border
    const own = new Uint8Array(side * side);
    pixels.forEach((i) => (own[(Math.floor(i / size) - y0 + 1) * side + (i % size) - x0 + 1] = 1));
    const filled = new Uint8Array(side * side).fill(1);
    parts(own, side, 0, false)[0].pixels.forEach((i) => (filled[i] = 0));
    let area = 0;
    for (let i = 0; i < side * (side - 1); i++) {
      const corners = filled[i] + filled[i + 1] + filled[i + side] + filled[i + side + 1];
      area += corners === 4 ? 1 : corners === 3 ? 0.5 : 0;
    }
    return area;
  }

  const boxesOf = (mask, size) => parts(mask, size, 1, true).map((part) => part.box);

  // Boxes of the contours around holes: their pixels are those around the hole.
  function holeBoxes(mask, size) {
    const inner = ([x0, y0, x1, y1]) => x0 > 0 && y0 > 0 && x1 < size && y1 < size;
    return parts(mask, size, 0, false)
      .map((part) => part.box)
      .filter(inner)
      .map(([x0, y0, x1, y1]) => [x0 - 1, y0 - 1, x1 + 1, y1 + 1]);
  }

  // The box around the region with the largest outline; of equals the one that was read last.
  function largestBox(mask, size) {
    const found = parts(mask, size, 1, true).map((part) => [enclosed(part, size), part.box]);
    return found.reduce((one, other) => (other[0] >= one[0] ? other : one), [0, [0, 0, 0, 0]])[1];
  }

  function boxOverlap(box, truth, plus = 0) {
    const side = (one, k) => one[k + 2] - one[k] + plus;
    const common = [0, 1]
      .map((k) => Math.max(0, Math.min(box[k + 2], truth[k + 2]) - Math.max(box[k], truth[k]) + plus))
      .reduce((width, height) => width * height);
    const area = side(box, 0) * side(box, 1);
    const union = area + side(truth, 0) * side(truth, 1) - common;
    return { iou: union > 0 ? common / union : 0, iobb: area > 0 ? common / area : 0 };
  }

  function overlap(region, truth) {
    let [area, common, union] = [0, 0, 0];
    region.forEach((value, i) => {
      area += value;
      common += value & truth[i];
      union += value | truth[i];
    });
    return { iou: common / Math.max(union, 1), iobb: common / Math.max(area, 1) };
  }

  const best = (boxes, truths, key, plus) =>
    boxes.reduce((most, box) => Math.max(most, ...truths.map((truth) => boxOverlap(box, truth, plus)[key])), 0);

  // ---- one map beside its truth ---------------------------------------------------------------

  function caseOf(map, { boxes, outline }, size) {
    const frame = upsample(map, size);
    return {
      size,
      boxes,
      truth: bits(outline),
      frame,
      low: lowest(frame),
      high: highest(frame),
      rescaled: rescale(frame),
      aligned: rescale(upsample(map, size, true)),
    };
  }

  function above(values, level) {
    const mask = new Uint8Array(values.length);
    const least = Math.fround(level);
    for (let i = 0; i < mask.length; i++) mask[i] = values[i] > least ? 1 : 0;
    return mask;
  }

  // A threshold as a share of the range and as a share of the maximum.
  function shares({ low, high }, kind, share) {
    return kind === "range"
      ? { range: share, maximum: (low + share * (high - low)) / high }
      : { range: (share * high - low) / (high - low), maximum: share };
  }

  // What every convention with a threshold measures with this one in place of its own.
  function atThreshold(one, kind, share) {
    const { size, boxes, truth, low, high } = one;
    const of = shares(one, kind, share);
    const level = Math.fround(low + Math.fround(of.range * Math.fround(high - low)));
    const pylon = overlap(above(one.frame, of.maximum * high), truth);
    const ham = overlap(Uint8Array.from(one.aligned, (value) => value >= Math.fround(of.range)), truth);
    const levels = Uint8Array.from(one.rescaled, (value) => Math.fround(value * 255));
    const cut = above(levels, Math.trunc(of.range * highest(levels)));
    const largest = largestBox(cut, size);
    const clip = (box) => box.map((edge, k) => Math.min(edge, k < 2 ? size : size - 1));
    const whole = boxes.map((box) => box.map((edge) => Math.trunc(edge + SLACK)));
    const contours = [...boxesOf(cut, size), ...holeBoxes(cut, size)].map(clip);
    const around = boxesOf(above(one.frame, level), size);
    return {
      pylon_iou: pylon.iou,
      pylon_iobb: pylon.iobb,
      ham_iou: ham.iou,
      ham_ior: ham.iobb,
      chexlocalize_iou: overlap(above(one.rescaled, of.range), truth).iou,
      wsol_largest: best([clip(largest)], whole, "iou", 1),
      wsol_all: best(contours, whole, "iou", 1),
      clarity: best([largest], boxes, "iou", 0),
      wang_iou: best(around, boxes, "iou", 0),
      wang_iobb: best(around, boxes, "iobb", 0),
    };
  }

  const numbers = { unpack, bits, sum, highest, lse, gradient, upsample, pointing, continuousDice };
  Object.assign(numbers, { above, boxesOf, largestBox, shares, caseOf, atThreshold });
  (window.cxrlib ||= {}).numbers = numbers;
})();
