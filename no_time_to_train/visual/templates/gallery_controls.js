// Elements, and the controls beside the images.

/** A file's name: its folder may be shortened first. */
function fileName(parent, name) {
  const cut = name.lastIndexOf("/") + 1;
  const made = element(parent, "span", { className: "file", title: name });
  if (cut) element(made, "span", { className: "folder", textContent: name.slice(0, cut) });
  element(made, "span", { className: "base", textContent: name.slice(cut) });
}

const byId = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";

function element(parent, name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  parent?.append(made);
  return made;
}

function svgElement(parent, name, attributes = {}) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  parent?.append(made);
  return made;
}

const dot = (color) => {
  const made = element(null, "span", { className: "dot" });
  made.style.setProperty("--color", color);
  return made;
};

/**
 * A slider on a histogram of scores.
 * `changed(value)` is called while it moves, `settled()` when it is released, `reset()` by its button.
 */
function slider(parent, { name, label, color, changed, reset }) {
  const box = element(parent, "div", { className: "slider" });
  if (color) box.style.setProperty("--color", color);
  const head = element(box, "div", { className: "head" }, ...(color ? [dot(color)] : []));
  element(head, "span", { className: "name", textContent: name, title: name });
  const undo = element(head, "button", { className: "reset", textContent: "reset", onclick: reset });
  undo.setAttribute("aria-label", `Reset: ${label}`);
  const value = element(head, "output");
  const plot = element(box, "div", { className: "plot", title: "How many instances have which score (square roots)" });
  const svg = svgElement(plot, "svg", { viewBox: "0 0 50 1", preserveAspectRatio: "none", "aria-hidden": true });
  const bars = ["all", "kept"].map((kind) => svgElement(svg, "path", { class: kind }));
  element(plot, "div", { className: "rail" });
  const input = element(plot, "input", { type: "range", min: range.low, max: range.high, step: 0.01 });
  input.setAttribute("aria-label", label);
  const ends = element(box, "div", { className: "ends" });
  for (const end of [range.low, range.high]) element(ends, "span", { textContent: decimals(end) });
  input.addEventListener("input", () => changed(Number(input.value)));
  input.addEventListener("change", () => arrange());
  return {
    input,
    show(score, own) {
      if (Number(input.value) !== score) input.value = score;
      value.textContent = decimals(score);
      undo.style.visibility = own ? "visible" : "hidden";
      const share = Math.min(Math.max((score - range.low) / (range.high - range.low), 0), 1);
      bars[1].style.clipPath = `inset(0 0 0 ${100 * share}%)`;
    },
    plot(values) {
      const counts = new Float64Array(50);
      const width = (range.high - range.low) / 50;
      for (const score of values) counts[Math.min(Math.floor((score - range.low) / width + 1e-6), 49)] += 1;
      const most = Math.sqrt(counts.reduce((a, b) => Math.max(a, b), 1));
      const heights = [...counts].map((count) => (count ? Math.max(Math.sqrt(count) / most, 0.04) : 0));
      // The invisible first piece gives the clipped path the width of the whole plot.
      const path = "M0 1H50" + heights.map((h, i) => (h ? `M${i + 0.08} 1V${1 - h}h.84V1z` : "")).join("");
      for (const bar of bars) bar.setAttribute("d", path);
    },
  };
}

const sliders = {
  all: slider(byId("threshold"), {
    name: "Threshold",
    label: "Lowest score",
    changed: (score) => update({ threshold: score }),
  }),
  classes: [],
};

if (classes.length < 2) byId("class-thresholds").remove();
else {
  // The sliders of classes are made when they are first unfolded.
  byId("class-thresholds").addEventListener("toggle", () => {
    if (sliders.classes.length) return;
    const home = document.querySelector("#class-thresholds > div");
    sliders.classes = classes.map((one, index) => {
      const own = (score) => {
        chosen.classThresholds[index] = score;
        update();
      };
      const made = slider(home, {
        name: one.name,
        label: `Lowest score of ${one.name}`,
        color: one.color,
        changed: own,
        reset: () => (own(null), arrange()),
      });
      made.plot(instances.filter((other) => other.class === index).map((other) => other.score));
      return made;
    });
    update();
  });
  if (Object.keys(data.classScores).length) byId("class-thresholds").open = true;
}

const chips = classes.map((one, index) => {
  const chip = element(byId("chips"), "button", { className: "chip", title: one.name }, dot(one.color));
  element(chip, "span", { className: "name", textContent: one.name });
  const count = element(chip, "span", { className: "count" });
  // Room for the largest count, so that nothing moves while counts change.
  const most = instances.reduce((sum, other) => sum + (other.class === index), 0);
  count.style.minWidth = `${most.toLocaleString("en").length}ch`;
  chip.addEventListener("click", () => {
    chosen.off[index] = !chosen.off[index];
    plotScores();
    update();
    arrange();
  });
  return { chip, count };
});
const everyClass = element(byId("chips"), "button", { className: "chip", textContent: "show all" });
everyClass.addEventListener("click", showAllClasses);

function showAllClasses() {
  chosen.off.fill(false);
  plotScores();
  update();
  arrange();
}

function plotScores() {
  sliders.all.plot(instances.filter((one) => !chosen.off[one.class]).map((one) => one.score));
}

{
  const shown = classes.filter((one) => one.references.length);
  const total = shown.reduce((sum, one) => sum + one.references.length, 0);
  if (!total) byId("references").remove();
  else document.querySelector("#references h2").textContent = plural(total, "reference");
  for (const one of shown) {
    const fold = element(byId("references"), "details");
    const summary = element(fold, "summary", {}, dot(one.color));
    element(summary, "span", { className: "name", textContent: one.name, title: one.name });
    element(summary, "span", { className: "count", textContent: one.references.length });
    const tiles = element(fold, "div", { className: "tiles" });
    fold.addEventListener("toggle", () => {
      if (tiles.children.length) return;
      for (const src of one.references) element(tiles, "img", { alt: `reference of ${one.name}`, src });
    });
  }
}

byId("search").addEventListener("input", (event) => update({ search: event.target.value }));
byId("sort").addEventListener("change", (event) => arrange({ sort: event.target.value }));
byId("direction").addEventListener("click", () => arrange({ reversed: !chosen.reversed }));
byId("empty").addEventListener("change", (event) => update({ empty: event.target.checked }));
byId("truth").addEventListener("change", (event) => redraw({ truth: event.target.checked }));
for (const radio of document.getElementsByName("colors")) {
  radio.checked = (radio.value === "instance") === chosen.byInstance;
  radio.addEventListener("change", () => redraw({ byInstance: radio.value === "instance" }));
}
byId("truth-row").hidden = !images.some((image) => image.truth.length);
byId("open-panel").addEventListener("click", () => byId("panel").classList.toggle("open"));
byId("close-panel").addEventListener("click", () => {
  byId("panel").classList.remove("open");
  byId("open-panel").focus();
});

if (data.command === null) byId("command").remove();
else {
  const code = document.querySelector("#command code");
  const button = document.querySelector("#command button");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(commandParts().join(" "));
    } catch {
      getSelection().selectAllChildren(code);
      document.execCommand("copy");
    }
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = "Copy this command"), 1500);
  });
}

function showCommand() {
  const code = document.querySelector("#command code");
  code.replaceChildren();
  for (const part of commandParts()) code.append(element(null, "span", { textContent: part }), " ");
}

/** Say what is missing, and offer the step that helps. */
function sayNothing(found) {
  const box = byId("nothing");
  const any = images.some((image) => image.lowered.includes(chosen.search.trim().toLowerCase()));
  const reached = images.some((image) => image.instances.some((one) => one.score >= threshold(one.class)));
  let said = null;
  if (found.instances) {
    box.hidden = true;
    return;
  }
  if (!images.length) said = ["No image was read.", "See the messages of the command for the reasons."];
  else if (!best)
    said = [
      "Nothing was found.",
      `In ${plural(images.length, "image")} nothing resembles the references at all. Look at the references: each ` +
        "outline should follow one object. More references help, and so do references that look like the objects in " +
        "these images.",
    ];
  else if (!reached)
    said = [
      "Nothing reaches the threshold.",
      `The threshold is ${decimals(chosen.threshold)}. The best score is ${decimals2(best.instance.score)}: ` +
        `${classes[best.instance.class].name} in ${best.image.name}. If that instance is right, lower the threshold; ` +
        "if not, give more references, or better ones.",
      `Lower the threshold to ${decimals(lower())}`,
      () => {
        chosen.classThresholds.fill(null);
        update({ threshold: lower() });
        arrange();
      },
    ];
  else if (!any)
    said = [
      "No image has this name.",
      `No file name contains “${chosen.search.trim()}”.`,
      "Clear the search",
      () => {
        byId("search").value = "";
        update({ search: "" });
      },
    ];
  else if (chosen.off.some(Boolean))
    said = ["No instance is of a chosen class.", "Choose more classes.", "Show all classes", showAllClasses];
  else said = ["These images have no instances.", "Lower the threshold, or clear the search."];
  box.hidden = false;
  const [head, text, step, action] = said;
  const key = said.slice(0, 3).join("\n");
  if (box.key === key) return;
  box.key = key;
  box.replaceChildren();
  element(box, "strong", { textContent: head });
  element(box, "p", { textContent: text });
  if (step) element(box, "button", { className: "primary", textContent: step, onclick: action });
}

/** The threshold, of two decimals, that the best instance reaches. */
const lower = () => Math.max(Math.floor(100 * best.instance.score + 1e-9) / 100, 0);
