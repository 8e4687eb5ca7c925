// One image alone, with live outlines and labels.

const viewer = byId("viewer");
let open = null; // {image, groups}

/** Outlines as groups of a white and a colored path. */
function outlineGroups(svg, image) {
  svg.setAttribute("viewBox", `0 0 ${image.view[0]} ${image.view[1]}`);
  const group = (one, kind) => {
    const made = svgElement(svg, "g", { class: kind });
    for (const part of ["halo", "shape"]) svgElement(made, "path", { class: part, d: one.outline });
    made.one = one;
    return { one, made };
  };
  return {
    instances: bySize(image.instances).map((one) => group(one, "instance")),
    truth: image.truth.map((one) => group(one, "truth")),
  };
}

/** Show the groups that are chosen, in their colors. */
function paint(groups) {
  for (const { one, made } of groups.instances) {
    made.style.display = kept(one) ? "" : "none";
    made.style.setProperty("--color", color(one));
  }
  for (const { made } of groups.truth) made.style.display = chosen.truth ? "" : "none";
}

function openViewer(image) {
  byId("threshold-guest").append(byId("threshold"));
  viewer.showModal();
  visit(image);
}

viewer.addEventListener("close", () => {
  byId("threshold-home").append(byId("threshold"));
  const { image } = open;
  open = null;
  byId("tip").hidden = true;
  image.figure.scrollIntoView({ block: "nearest" });
  image.frame.focus({ preventScroll: true });
});

function visit(image) {
  byId("viewer-name").replaceChildren();
  fileName(byId("viewer-name"), image.name);
  byId("full").href = image.overlay;
  byId("photo").style.backgroundImage = `url("${image.thumbnail}")`;
  byId("picture").src = image.preview;
  byId("picture").alt = image.name;
  byId("outlines").replaceChildren();
  byId("tip").hidden = true;
  open = { image, groups: outlineGroups(byId("outlines"), image), listed: null };
  showViewer();
  for (const other of [neighbor(1), neighbor(-1)]) if (other) new Image().src = other.preview;
}

/** The next visible image in a direction, or null. */
function neighbor(step) {
  let figure = open.image.figure;
  do figure = step > 0 ? figure.nextElementSibling : figure.previousElementSibling;
  while (figure && figure.hidden);
  return figure && figure.image;
}

function move(step) {
  const image = open && neighbor(step);
  if (image) visit(image);
}

/** Bring the open image up to date with the choices and the size of the window. */
function showViewer() {
  if (!open) return;
  const { image, groups } = open;
  const stage = byId("stage");
  const room = getComputedStyle(stage);
  const fit = [
    (stage.clientWidth - parseFloat(room.paddingLeft) - parseFloat(room.paddingRight)) / image.size[0],
    (stage.clientHeight - parseFloat(room.paddingTop) - parseFloat(room.paddingBottom)) / image.size[1],
  ];
  const scale = Math.min(...fit, 4); // a small picture is enlarged to four times its size at most
  const [width, height] = image.size.map((side) => scale * side);
  Object.assign(byId("photo").style, { width: `${width}px`, height: `${height}px` });
  paint(groups);
  const visible = [...byId("images").children].filter((figure) => !figure.hidden);
  const place = visible.indexOf(image.figure) + 1;
  byId("viewer-place").textContent = place ? `${place} of ${visible.length}` : "";
  byId("previous").disabled = !neighbor(-1);
  byId("next").disabled = !neighbor(1);
  const shown = image.instances.filter(kept).sort((a, b) => a.number - b.number);
  writeLabels(shown, width, height);
  list(shown);
}

/** One line per instance, which shows where it is. */
function list(shown) {
  const key = shown.map((one) => one.number + color(one)).join(" ");
  if (open.listed === key) return;
  open.listed = key;
  byId("found").replaceChildren();
  for (const one of shown) {
    const line = element(element(byId("found"), "li"), "button", { one });
    element(line, "span", { className: "number", textContent: one.number });
    line.append(dot(color(one)));
    element(line, "span", { className: "name", textContent: classes[one.class].name, title: classes[one.class].name });
    element(line, "span", { textContent: decimals2(one.score) });
    if (one.source) line.title = `proposed by ${one.source}`;
    for (const type of ["pointerenter", "focus"]) line.addEventListener(type, () => mark(one));
    for (const type of ["pointerleave", "blur"]) line.addEventListener(type, () => mark(null));
  }
  if (!shown.length) element(byId("found"), "li", { textContent: "Nothing reaches the threshold here." });
}

/** Emphasize one instance, in the picture and in the list. */
function mark(one) {
  if (!open) return;
  for (const group of open.groups.instances) group.made.classList.toggle("on", group.one === one);
  for (const line of byId("found").querySelectorAll("button")) line.classList.toggle("on", line.one === one);
}

function writeLabels(shown, width, height) {
  const svg = byId("texts");
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.replaceChildren();
  if (!byId("labels").checked) return;
  const size = Math.round(Math.min(Math.max(Math.sqrt(width * height) / 60, 11), 17));
  const pen = (writeLabels.pen ??= document.createElement("canvas").getContext("2d"));
  pen.font = `${size}px system-ui, sans-serif`;
  const unit = width / open.image.view[0];
  const boxes = shown.map(({ box: [x, y, w, h] }) => [x, y, x + w, y + h].map((side) => side * unit));
  const tries = [
    shown.map((one) => `${classes[one.class].name} ${decimals2(one.score)}`),
    shown.map((one) => String(one.number)),
  ];
  for (const texts of tries) {
    const sizes = texts.map((text) => [pen.measureText(text).width + 0.6 * size, 1.4 * size]);
    const places = placeLabels(boxes, sizes, width, height, texts === tries[1]);
    const crowded = places.filter((place) => !place).length > 0.1 * places.length;
    if (crowded && texts === tries[0]) continue;
    places.forEach((place, index) => {
      if (!place) return;
      const [w, h] = sizes[index];
      const shade = color(shown[index]);
      svgElement(svg, "rect", { x: place[0], y: place[1], width: w, height: h, rx: 3, fill: shade });
      const where = { x: place[0] + 0.3 * size, y: place[1] + h / 2, "font-size": size, fill: ink(shade) };
      svgElement(svg, "text", where).textContent = texts[index];
    });
    return;
  }
}

/** Black or white, whichever is easier to read on a color. */
function ink(shade) {
  const [r, g, b] = [1, 3, 5].map((at) => {
    const part = parseInt(shade.slice(at, at + 2), 16) / 255;
    return part <= 0.04 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b < 0.2 ? "#fff" : "#000";
}

/** As place_labels in visual/labels.py: a label covers no other one, and little of any object. */
function placeLabels(boxes, sizes, width, height, inside) {
  const shared = (a, b) =>
    Math.max(Math.min(a[2], b[2]) - Math.max(a[0], b[0]), 0) * Math.max(Math.min(a[3], b[3]) - Math.max(a[1], b[1]), 0);
  const placed = [];
  return boxes.map(([x1, y1, x2, y2], index) => {
    const [w, h] = sizes[index];
    const middle = [(x1 + x2 - w) / 2, (y1 + y2 - h) / 2];
    const candidates = [
      [x1, y1 - h], [x2 - w, y1 - h], [x1, y2], [x2 - w, y2], [x1, y1], [x2 - w, y1], middle, [x2, y1],
      [x1 - w, y1], [x2, middle[1]], [x1 - w, middle[1]],
    ];
    if (inside && w * h <= 0.15 * (x2 - x1) * (y2 - y1)) candidates.unshift(middle);
    for (const candidate of candidates) {
      const left = Math.min(Math.max(candidate[0], 0), width - w);
      const top = Math.min(Math.max(candidate[1], 0), height - h);
      const label = [left, top, left + w, top + h];
      if (left < 0 || top < 0 || placed.some((other) => shared(label, other) > 0)) continue;
      const hides = (box, other) =>
        shared(label, box) > (other === index ? 0.3 : 0.08) * (box[2] - box[0]) * (box[3] - box[1]);
      if (boxes.some(hides)) continue;
      placed.push(label);
      return [left, top];
    }
    return null;
  });
}

// What is under the pointer, or under the finger.
byId("outlines").addEventListener("pointermove", showTip);
byId("outlines").addEventListener("pointerdown", showTip);

function showTip(event) {
  const group = event.target.closest("g");
  const tip = byId("tip");
  tip.hidden = !group;
  if (!group) return mark(null);
  const { one } = group;
  const label = classes[one.class].name;
  const source = one.source ? ` · proposed by ${one.source}` : "";
  const text = `${one.number} · ${label} · ${decimals2(one.score)}${source}`;
  tip.textContent = one.number ? text : `ground truth: ${label}`;
  mark(one);
  const stage = byId("stage").getBoundingClientRect();
  const left = Math.min(event.clientX - stage.left + 14, stage.width - tip.offsetWidth - 8);
  const top = event.clientY - stage.top - tip.offsetHeight - 10;
  tip.style.transform = `translate(${Math.max(left, 8)}px, ${top < 8 ? event.clientY - stage.top + 18 : top}px)`;
}

byId("outlines").addEventListener("pointerleave", (event) => {
  if (event.pointerType === "touch") return; // it stays until the next touch
  byId("tip").hidden = true;
  mark(null);
});

byId("previous").addEventListener("click", () => move(-1));
byId("next").addEventListener("click", () => move(1));
byId("close").addEventListener("click", () => viewer.close());
byId("labels").addEventListener("change", showViewer);
addEventListener("resize", showViewer);
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.matches("input[type=range], input[type=search], select")) return;
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (open && step) {
    move(step);
    event.preventDefault();
  } else if (open && event.key === "l") byId("labels").click();
  else if (!open && event.key === "/") {
    byId("search").focus();
    event.preventDefault();
  }
});

// A swipe goes to the next image.
let start = null;
byId("stage").addEventListener("touchstart", (event) => {
  start = event.touches.length === 1 ? event.touches[0] : null;
});
byId("stage").addEventListener("touchend", (event) => {
  if (!start) return;
  const x = event.changedTouches[0].clientX - start.clientX;
  const y = event.changedTouches[0].clientY - start.clientY;
  if (Math.abs(x) > 60 && Math.abs(x) > 2 * Math.abs(y)) move(x > 0 ? -1 : 1);
  start = null;
});
