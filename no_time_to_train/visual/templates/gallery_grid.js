// The cells of the images. A cell is filled when it first comes near the screen, and its outlines are drawn only there.

const near = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) {
      target.image.near = isIntersecting;
      if (isIntersecting) draw(target.image);
      else release(target.image);
    }
  },
  { rootMargin: "400px" },
);

for (const image of images) {
  const figure = element(null, "figure", { image, hidden: true });
  image.figure = figure;
  image.frame = element(figure, "button", { className: "frame" });
  image.frame.setAttribute("aria-label", `Open ${image.name}`);
  image.frame.addEventListener("click", () => openViewer(image));
  element(figure, "figcaption");
  near.observe(figure);
}
byId("images").append(...sorted().map((image) => image.figure));

// Rows of a known height, a picture of 4:3 and two lines of text, need no layout of the cells out of sight.
const cell = { width: 0, height: 0 };
new ResizeObserver(() => {
  cell.width = parseFloat(getComputedStyle(byId("images")).gridTemplateColumns);
  cell.height = 0.75 * cell.width;
  byId("images").style.gridAutoRows = `${cell.height + 46}px`;
  redraw();
}).observe(byId("images"));

/** Free what a cell out of sight no longer needs. */
function release(image) {
  image.canvas?.remove();
  image.canvas = image.drawn = null;
}

/** Draw instances and the ground truth into a cell, on a canvas: thousands of outlines are too many for elements. */
function drawOutlines(image, shown) {
  const ratio = Math.max(devicePixelRatio, 1);
  const [width, height] = [cell.width, cell.height].map((side) => Math.round(ratio * side));
  image.canvas ??= element(image.frame, "canvas");
  Object.assign(image.canvas, { width, height }); // this clears it, too
  const pen = image.canvas.getContext("2d");
  const scale = Math.min(width / image.view[0], height / image.view[1]);
  pen.translate((width - scale * image.view[0]) / 2, (height - scale * image.view[1]) / 2);
  pen.scale(scale, scale);
  pen.lineJoin = "round";
  const line = (path, width, style, dash = [], offset = 0) => {
    const pixel = ratio / scale;
    Object.assign(pen, { lineWidth: width * pixel, strokeStyle: style, lineDashOffset: offset * pixel });
    pen.setLineDash(dash.map((length) => length * pixel));
    pen.stroke(path);
  };
  for (const one of bySize(shown)) {
    const path = (one.path ??= new Path2D(one.outline));
    const shade = color(one);
    line(path, 3.25, "#fff");
    pen.fillStyle = `${shade}40`;
    pen.fill(path, "evenodd");
    line(path, 1.5, shade);
  }
  for (const one of chosen.truth ? image.truth : []) {
    const path = (one.path ??= new Path2D(one.outline));
    line(path, 2, "#fff", [4, 10]);
    line(path, 2, "#000", [4, 10], -4);
  }
}

function draw(image) {
  if (!image.found) {
    element(image.frame, "img", { alt: "", decoding: "async", src: image.thumbnail });
    const caption = image.figure.lastElementChild;
    fileName(caption, image.name);
    image.found = element(caption, "span", { className: "found" });
  }
  const shown = image.instances.filter(kept);
  const state = [cell.width, devicePixelRatio, chosen.byInstance, chosen.truth, ...shown.map((one) => one.number)].join();
  if (image.drawn === state) return;
  image.drawn = state;
  drawOutlines(image, shown);
  const counts = new Map();
  for (const one of shown) counts.set(one.class, (counts.get(one.class) ?? 0) + 1);
  const most = [...counts]
    .sort((a, b) => b[1] - a[1])
    .map(([index, count]) => [`${count} ${classes[index].name}`, index]);
  image.found.replaceChildren();
  const list = element(image.found, "span", { title: most.map(([text]) => text).join(", ") });
  for (const [text, index] of most) list.append(dot(classes[index].color), `${text}\u2002`);
  if (!shown.length) list.textContent = "nothing";
  else {
    const top = Math.max(...shown.map((one) => one.score));
    element(image.found, "span", { textContent: decimals2(top), title: "best score" });
  }
}

/** Redraw what is near the screen, with other colors or with the ground truth. */
function redraw(changes) {
  Object.assign(chosen, changes);
  for (const image of images) if (image.near && image.visible) draw(image);
  showViewer();
}

/** Apply other choices: counts, visible images, and outlines. The order of the images stays until arrange(). */
function update(changes) {
  Object.assign(chosen, changes);
  const found = select();
  for (const image of images) {
    if (image.figure.hidden === image.visible) image.figure.hidden = !image.visible;
  }
  const of = `in ${found.images.toLocaleString("en")} of ${plural(images.length, "image")}`;
  const parts = [plural(found.instances, "instance"), of];
  byId("totals").replaceChildren(...parts.map((text) => element(null, "span", { textContent: `${text} ` })));
  chips.forEach(({ chip, count }, index) => {
    count.textContent = found.classes[index].toLocaleString("en");
    chip.setAttribute("aria-pressed", !chosen.off[index]);
  });
  everyClass.hidden = !chosen.off.some(Boolean);
  sliders.all.show(chosen.threshold, false);
  sliders.classes.forEach((one, index) => one.show(threshold(index), chosen.classThresholds[index] !== null));
  if (data.command !== null) showCommand();
  sayNothing(found);
  redraw();
}

/** Put the images in the chosen order. */
function arrange(changes) {
  Object.assign(chosen, changes);
  byId("direction").setAttribute("aria-pressed", chosen.reversed);
  const order = sorted();
  const home = byId("images");
  if (order.some((image, index) => home.children[index] !== image.figure)) {
    home.append(...order.map((image) => image.figure));
  }
}

plotScores();
update();
arrange();
