// The explorer of conventions: one map, one threshold, and what every origin makes of it.
"use strict";

window.cxrlib.views.conventions = async (view, data) => {
  const { element, choice, slider, panel, images, pixels, strokeBox, origin, spoken } = window.cxrlib.page;
  const numbers = window.cxrlib.numbers;

  // Name, truth and box convention; the measurements; how a hit compares with T; the own threshold.
  const ROWS = [
    ["PYLON", "region, above", "pylon_iou", "pylon_iobb", ">", "half the maximum", "pylon_iou"],
    ["HAM", "region, at least; corners aligned", "ham_iou", "ham_ior", "≥", "0.469 of the range", "ham_iou"],
    ["CheXlocalize", "region, above", "chexlocalize_iou", null, null, "Otsu's, holes filled", "chexlocalize_otsu"],
    ["MaxBoxAcc", "box around the largest, +1", "wsol_largest", null, "≥", "best of 100", null],
    ["MaxBoxAccV2", "boxes around all, +1", "wsol_all", null, "≥", "best of 100", null],
    ["CLARiTy", "box around the largest, half-open", "clarity", null, "≥", "tuned on other patients", null],
    ["Wang", "boxes around all, half-open", "wang_iou", "wang_iobb", ">", "60 and 180 of 255", "wang_iou"],
  ];

  const names = data.findings.map(({ name }, i) => [i, spoken(name)]);
  const shown = data.findings.findIndex(({ name }) => name === data.shown.finding);
  const first = data.methods.findIndex(({ name }) => name === data.shown.method);
  const methods = data.methods.map(({ name }, i) => [i, name]);
  const kinds = [["maximum", "the maximum"], ["range", "the range, minimum to maximum"]];
  const around = [["largest", "the largest region"], ["all", "all regions"]];
  const [finding, findingLabel] = choice("Finding", "finding", names, shown, renew);
  const [method, methodLabel] = choice("Map of", "method", methods, first, renew);
  const [kind, kindLabel] = choice("Threshold as a share of", "kind", kinds, data.shown.kind, update);
  const [boxes, boxesLabel] = choice("Boxes around", "boxes", around, "largest", update);
  const limits = { min: 1, max: 99, step: "any", list: "own-thresholds" };
  const [input, say, inputLabel] = slider("Threshold:", "share", limits, 100 * data.shown.share, update);
  input.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10 }[event.key];
    if (!by) return;
    event.preventDefault();
    input.value = Math.round(Number(input.value)) + by;
    update();
  });
  const marks = element("datalist", { id: "own-thresholds" });
  const own = element("div", { class: "own", role: "group", "aria-label": "Thresholds of the origins" });

  const [showMap, mapPanel, mapCaption] = panel("");
  const [showRegion, regionPanel] = panel("what is above the threshold; true box solid");
  const cells = Object.fromEntries(ROWS.map(([name]) => [name, [0, 1, 2, 3].map(() => element("td"))]));
  const head = ["Convention", "IoU", "IoBB", "hit up to T", "IoU at its own threshold"];
  const body = ROWS.map(([name, compares]) =>
    element("tr", {}, element("th", { scope: "row" }, name, element("small", {}, compares)), ...cells[name]),
  );
  const whole = element("p", { "aria-live": "polite" });
  const table = element(
    "table",
    { class: "live" },
    element("thead", {}, element("tr", {}, ...head.map((words) => element("th", { scope: "col" }, words)))),
    element("tbody", { "aria-live": "polite" }, ...body),
  );
  view.append(
    element("div", { class: "controls" }, findingLabel, methodLabel, kindLabel, boxesLabel, inputLabel, marks, own),
    element("div", { class: "panels" }, mapPanel, regionPanel),
    whole,
    element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Scores by convention" }, table),
    origin(data.about),
  );

  const radiographs = await images(data.images);
  let one = null;

  // Another map: it is measured anew, and Otsu's threshold is elsewhere.
  function renew() {
    const scene = data.findings[finding.value];
    const { map, own: its } = data.methods[method.value].findings[finding.value];
    one = numbers.caseOf(numbers.unpack(map), scene, data.size);
    const thresholds = [
      ["Wang 60", "range", data.own.wang[0]],
      ["HAM 0.469", "range", data.own.ham],
      ["PYLON ½ max", "maximum", data.own.pylon],
      ["Wang 180", "range", data.own.wang[1]],
      ["Otsu", "range", its.otsu],
    ];
    own.replaceChildren(
      ...thresholds.map(([words, of, share]) =>
        element("button", { type: "button", onclick: () => choose(of, share) }, words),
      ),
    );
    marks.dataset.thresholds = JSON.stringify(thresholds);
    update();
  }

  function choose(of, share) {
    kind.value = of;
    input.value = 100 * share;
    update();
  }

  // Ticks stand where each origin's threshold is on the scale that is chosen.
  function placeTicks() {
    const ticks = JSON.parse(marks.dataset.thresholds).map(([words, of, share]) => {
      const at = numbers.shares(one, of, share)[kind.value];
      return element("option", { value: 100 * at, label: words });
    });
    marks.replaceChildren(...ticks);
  }

  function update() {
    const scene = data.findings[finding.value];
    const { own: its } = data.methods[method.value].findings[finding.value];
    const share = Number(input.value) / 100;
    const level = numbers.shares(one, kind.value, share).maximum * one.high;
    const region = numbers.above(one.frame, level);
    const all = numbers.boxesOf(region, data.size);
    const found = boxes.value === "all" ? all : [numbers.largestBox(region, data.size)];
    const name = spoken(scene.name);
    const scale = (side) => side / data.size;

    placeTicks();
    say(`${(100 * share).toFixed(1)} % of the ${kind.value}, S > ${level.toFixed(3)}`);
    mapCaption.textContent = `the map: minimum ${one.low.toFixed(2)}, maximum ${one.high.toFixed(2)}`;
    showMap((context, side) => {
      const bright = (i) => 255 * ((one.frame[i] - one.low) / (one.high - one.low));
      context.drawImage(pixels(data.size, (i) => [bright(i), bright(i), bright(i), 255]), 0, 0, side, side);
      scene.boxes.forEach((box) => strokeBox(context, box, scale(side), "#00e5ff"));
    }, `Map of ${name} by ${data.methods[method.value].name}, minimum ${one.low.toFixed(2)}, maximum ${one.high.toFixed(2)}, and the true box`);
    showRegion((context, side) => {
      context.drawImage(radiographs[scene.image], 0, 0, side, side);
      const tint = pixels(data.size, (i) => (region[i] ? [255, 176, 0, 120] : [0, 0, 0, 0]));
      context.imageSmoothingEnabled = false;
      context.drawImage(tint, 0, 0, side, side);
      scene.boxes.forEach((box) => strokeBox(context, box, scale(side), "#00e5ff"));
      found.forEach((box) => strokeBox(context, box, scale(side), "#ffb000", [7, 5]));
    }, `Radiograph with ${name}: ${numbers.sum(region)} of ${region.length} pixels above the threshold, in ${all.length === 1 ? "one region" : `${all.length} regions`}`);

    const measured = numbers.atThreshold(one, kind.value, share);
    for (const [row, , iou, iobb, compare, policy, at] of ROWS) {
      const reached = data.tiou.filter((T) => (compare === ">" ? measured[iou] > T : measured[iou] >= T));
      const [iouCell, iobbCell, hitCell, ownCell] = cells[row];
      iouCell.textContent = measured[iou].toFixed(3);
      iobbCell.textContent = iobb ? measured[iobb].toFixed(3) : "–";
      hitCell.textContent = compare ? (reached.length ? `${compare} ${reached.at(-1)}` : "none") : "mean IoU";
      ownCell.textContent = at ? `${its[at].toFixed(3)} (${policy})` : policy;
    }
    const hit = numbers.pointing(one.frame, one.boxes, data.size);
    const dice = numbers.continuousDice(one.frame, one.truth);
    const points = hit === 1 ? "hit" : hit === 0 ? "miss" : `${(100 * hit).toFixed(0)} % of a tie inside`;
    whole.textContent = `Without a threshold: pointing ${points}, continuous Dice ${dice.toFixed(3)}.`;
  }

  view.addEventListener("shown", renew);
};
