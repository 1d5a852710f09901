// The explorer of r0: two images, the maps of six networks, and every sharpness of the pooling.
"use strict";

window.cxrlib.views.r0 = async (view, data) => {
  const { element, choice, slider, panel, images, pixels, strokeBox, origin, spoken } = window.cxrlib.page;
  const numbers = window.cxrlib.numbers;
  const LAST = 100; // steps of the slider: 0 is the mean, the last one the maximum
  const DECADES = [0.1, 4]; // between them r runs from 0.1 over four powers of ten

  const sharpness = (step) => {
    if (step === 0) return 0;
    return step === LAST ? Infinity : DECADES[0] * 10 ** ((DECADES[1] * (step - 1)) / (LAST - 2));
  };
  const stepOf = (r) => Math.round(1 + ((LAST - 2) * Math.log10(r / DECADES[0])) / DECADES[1]);
  const inWords = (r) => {
    if (r === 0) return "r → 0, the mean";
    return r === Infinity ? "r → ∞, the maximum" : `r = ${Number(r.toPrecision(2))}`;
  };

  const names = data.findings.map(({ name }, i) => [i, spoken(name)]);
  const shown = data.findings.findIndex(({ name }) => name === data.shown.finding);
  const run = data.runs.findIndex(({ r0 }) => r0 === data.shown.r0);
  const [finding, findingLabel] = choice("Finding", "finding", names, shown, update);
  const networks = data.runs.map(({ r0 }, i) => [i, `r₀ = ${r0}`]);
  const [network, networkLabel] = choice("Network trained with", "r0", networks, run, update);
  const limits = { min: 0, max: LAST, step: 1 };
  const [input, say, inputLabel] = slider("Pooling:", "r", limits, stepOf(data.shown.r), update);

  const [showMap, mapPanel] = panel("its map, with the true box");
  const [showWeights, weightsPanel] = panel("who learns: ∂p/∂S");
  const [showOther, otherPanel, otherCaption] = panel("");
  const chart = element("div", { class: "chart" });
  const cells = {};
  const row = (key, label) => {
    cells[key] = element("td");
    return element("tr", {}, element("th", { scope: "row" }, label), cells[key]);
  };
  const live = element(
    "table",
    { class: "live" },
    element(
      "tbody",
      { "aria-live": "polite" },
      row("with", "p of the image with the finding"),
      row("without", "p of the image without it"),
      row("inside", "share of the gradient inside the finding"),
      row("pointing", "pointing of this map"),
      row("dice", "continuous Dice of this map"),
    ),
  );
  const controls = element("div", { class: "controls" }, findingLabel, networkLabel, inputLabel);
  const panels = element("div", { class: "panels" }, mapPanel, weightsPanel, otherPanel);
  view.append(controls, panels, chart, live, origin(data.about));

  const radiographs = await images(data.images);

  function colour(table, value) {
    const at = Math.min(Math.max(value, 0), 1) * (table.length - 1);
    const low = Math.min(Math.floor(at), table.length - 2);
    return table[low].map((from, k) => from + (table[low + 1][k] - from) * (at - low));
  }

  function overlay(context, side, image, frame) {
    const high = numbers.highest(frame);
    const map = pixels(data.size, (i) => [...colour(data.colours.magma, frame[i] / high), 140]);
    context.drawImage(radiographs[image], 0, 0, side, side);
    context.drawImage(map, 0, 0, side, side);
  }

  // The share of each cell of the map that the finding covers.
  function covered(truth, grid) {
    const cell = data.size / grid;
    const share = new Float64Array(grid * grid);
    truth.forEach((value, i) => {
      const [x, y] = [i % data.size, Math.floor(i / data.size)];
      share[Math.floor(y / cell) * grid + Math.floor(x / cell)] += value / cell ** 2;
    });
    return share;
  }

  function update() {
    const r = sharpness(Number(input.value));
    const scene = data.findings[finding.value];
    const name = spoken(scene.name);
    const trained = data.runs[network.value];
    const maps = trained.findings[finding.value].maps.map(numbers.unpack);
    const [one, other] = maps.map((map) => numbers.caseOf(map, scene, data.size));
    const weights = numbers.gradient(maps[0], r);
    const grid = Math.sqrt(weights.length);
    const share = covered(one.truth, grid);
    const p = maps.map((map) => numbers.lse(map, r));
    const inside = numbers.sum(weights.map((weight, i) => weight * share[i]));
    const hit = numbers.pointing(one.frame, one.boxes, data.size);
    const dice = numbers.continuousDice(one.frame, one.truth);

    say(inWords(r));
    showMap((context, side) => {
      overlay(context, side, scene.image, one.frame);
      scene.boxes.forEach((box) => strokeBox(context, box, side / data.size, "#00e5ff"));
    }, `Radiograph with ${name}, its true box, and the map of the network trained with r0 = ${trained.r0}; highest value ${one.high.toFixed(2)}`);
    const most = numbers.highest(weights);
    showWeights((context, side) => {
      context.imageSmoothingEnabled = false;
      context.drawImage(pixels(grid, (i) => [...colour(data.colours.viridis, weights[i] / most), 255]), 0, 0, side, side);
    }, `Share of the gradient of every cell of the map at ${inWords(r)}; ${percent(inside)} of it inside the finding`);
    otherCaption.textContent = `the map of an image without ${name.toLowerCase()}`;
    showOther(
      (context, side) => overlay(context, side, scene.negative, other.frame),
      `Radiograph without ${name} and the map of the same network; highest value ${other.high.toFixed(2)}`,
    );
    cells.with.textContent = p[0].toFixed(3);
    cells.without.textContent = p[1].toFixed(3);
    cells.inside.textContent = percent(inside);
    cells.pointing.textContent = hit === 1 ? "hit" : hit === 0 ? "miss" : `${percent(hit)} of a tie inside`;
    cells.dice.textContent = dice.toFixed(3);
    draw(maps, trained, name, Number(input.value));
  }

  const percent = (value) => `${(100 * value).toFixed(1)} %`;

  // The pooling curve over the steps of the slider, so that the marker stands where the slider does.
  function draw(maps, trained, name, step) {
    const [width, height, left, bottom, top] = [Math.max(chart.clientWidth, 300), 240, 44, 42, 12];
    const x = (at) => left + ((width - left - 14) * at) / LAST;
    const y = (p) => top + (height - top - bottom) * (1 - p);
    const steps = Array.from({ length: LAST + 1 }, (_, i) => i);
    const line = (map) => steps.map((i) => `${x(i).toFixed(1)},${y(numbers.lse(map, sharpness(i))).toFixed(1)}`).join(" ");
    const text = (at, h, words, anchor = "middle", extra = "") => `<text x="${at}" y="${h}" text-anchor="${anchor}" ${extra}>${words}</text>`;
    const ticks = [[0, "mean"], ...[1, 10, 100].map((r) => [stepOf(r), r]), [LAST, "max"]];
    const learned = x(stepOf(trained.r));
    const p = maps.map((map) => numbers.lse(map, sharpness(step)));
    chart.innerHTML = `<svg viewBox="0 0 ${width} ${height}" role="img" aria-label="Pooled probability against sharpness r: ${p[0].toFixed(2)} with ${name}, ${p[1].toFixed(2)} without, at ${inWords(sharpness(step))}">
      ${[0, 0.5, 1].map((v) => `<line class="grid" x1="${left}" x2="${x(LAST)}" y1="${y(v)}" y2="${y(v)}"/>${text(left - 6, y(v) + 4, v, "end")}`).join("")}
      ${ticks.map(([at, words]) => text(x(at), height - bottom + 18, words)).join("")}
      ${text(x(LAST / 2), height - 4, "sharpness r (logarithmic)")}
      ${text(12, y(0.75), "p")}
      <line class="learned" x1="${learned}" x2="${learned}" y1="${top}" y2="${y(0)}"/>
      ${text(learned + 5, y(0) - 6, `r kept in training, ${trained.r.toFixed(1)}`, "start")}
      <polyline class="with" points="${line(maps[0])}"/><polyline class="without" points="${line(maps[1])}"/>
      <line class="marker" x1="${x(step)}" x2="${x(step)}" y1="${top}" y2="${y(0)}"/>
      <circle class="with" cx="${x(step)}" cy="${y(p[0])}" r="5"/><circle class="without" cx="${x(step)}" cy="${y(p[1])}" r="5"/>
      <line class="with" x1="${left + 10}" x2="${left + 34}" y1="${top + 8}" y2="${top + 8}"/>${text(left + 40, top + 12, "with the finding", "start")}
      <line class="without" x1="${left + 10}" x2="${left + 34}" y1="${top + 26}" y2="${top + 26}"/>${text(left + 40, top + 30, "without", "start")}
    </svg>`;
  }

  view.addEventListener("shown", () => new ResizeObserver(update).observe(chart)); // at once, too
};
