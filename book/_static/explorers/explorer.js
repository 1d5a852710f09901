// Turns the still picture of an explorer page into the explorer; does nothing on other pages.
//
// Scripts and data are loaded by script elements from this file's own folder, because a page that
// is opened from a disk may not fetch().
"use strict";

(() => {
  const folder = new URL(".", document.currentScript.src);

  function load(tag, attributes) {
    return new Promise((done, failed) => {
      const asked = element(tag, { ...attributes, onload: done });
      asked.addEventListener("error", () => failed(new Error(`cannot load ${attributes.src ?? attributes.href}`)));
      document.head.append(asked);
    });
  }

  // An element with attributes and children; what starts with "on" is a listener.
  function element(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
      else made.setAttribute(name, value);
    }
    made.append(...children);
    return made;
  }

  // A labelled list of choices, pairs of value and text.
  function choice(label, name, options, value, changed) {
    const select = element("select", { name, onchange: changed });
    select.append(...options.map(([key, text]) => element("option", { value: key }, text)));
    select.value = value;
    return [select, element("label", {}, element("span", {}, label), select)];
  }

  // A labelled slider; changed() also says in words where it is: that is what is read aloud.
  function slider(label, name, limits, value, changed) {
    const input = element("input", { type: "range", name, oninput: changed, ...limits });
    const output = element("output");
    input.value = value;
    const say = (text) => {
      output.textContent = text;
      input.setAttribute("aria-valuetext", text);
    };
    return [input, say, element("label", { class: "wide" }, element("span", {}, label, " ", output), input)];
  }

  // A square canvas with a title; draw(context, side) is followed by what it shows in words.
  function panel(title) {
    const canvas = element("canvas", { width: 384, height: 384, role: "img" });
    const caption = element("span", {}, title);
    const show = (draw, words) => {
      const context = canvas.getContext("2d");
      context.clearRect(0, 0, canvas.width, canvas.height);
      draw(context, canvas.width);
      canvas.setAttribute("aria-label", words);
    };
    return [show, element("div", { class: "panel" }, canvas, caption), caption];
  }

  async function images(encoded) {
    const entries = Object.entries(encoded).map(async ([name, png]) => {
      const image = new Image();
      image.src = `data:image/png;base64,${png}`;
      await image.decode();
      return [name, image];
    });
    return Object.fromEntries(await Promise.all(entries));
  }

  // A small picture of size x size pixels, colour(i) -> [red, green, blue, opacity], as a canvas.
  function pixels(size, colour) {
    const canvas = element("canvas", { width: size, height: size });
    const context = canvas.getContext("2d");
    const data = context.createImageData(size, size);
    for (let i = 0; i < size * size; i++) data.data.set(colour(i), 4 * i);
    context.putImageData(data, 0, 0);
    return canvas;
  }

  function strokeBox(context, [x0, y0, x1, y1], scale, colour, dash = []) {
    context.strokeStyle = colour;
    context.lineWidth = 2.5;
    context.setLineDash(dash);
    context.strokeRect(x0 * scale, y0 * scale, (x1 - x0) * scale, (y1 - y0) * scale);
  }

  function origin({ data, seed, runs }) {
    const named = Object.entries(runs).map(([name, { run, commit }]) => `${name}: ${run} (${commit.slice(0, 9)})`);
    const text = `Phantom of seed ${seed}, data ${data}. Runs and the commits that made them: ${named.join(", ")}.`;
    return element("p", { class: "origin" }, text);
  }

  const spoken = (name) => name.replaceAll("_", " ");

  Object.assign((window.cxrlib ||= {}), {
    views: {},
    page: { element, choice, slider, panel, images, pixels, strokeBox, origin, spoken },
  });

  async function start(name) {
    const figure = document.getElementById(`explore-${name}`);
    if (!figure) return;
    const style = { rel: "stylesheet", href: new URL("explorer.css", folder).href };
    await Promise.all([
      ...["numbers.js", `${name}.js`, `${name}_view.js`].map((file) => load("script", { src: new URL(file, folder).href })),
      load("link", style),
    ]);
    const view = element("div", { class: "explorer", id: `explorer-${name}` });
    await window.cxrlib.views[name](view, window.cxrlib[name]);
    const still = figure.querySelector("a:has(img)") ?? figure.querySelector("img");
    still.replaceWith(view);
    view.dispatchEvent(new Event("shown"));
  }

  start("r0");
  start("conventions");
})();
