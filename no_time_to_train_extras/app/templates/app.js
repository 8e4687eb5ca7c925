// The photo with what was found in it, and the tools below. The server sends a scene: outlines in pixels of the photo,
// and what can be done. Zooming, hovering and typing happen here; every click is an act that the server answers in order.
const noTimeToTrain = (() => {
  const state = { scene: {}, classes: [], sent: 0, draft: false, zoom: 1, x: 0, y: 0, touched: false, label: "", corner: null, open: new Set(), rows: new Map(), frame: null, bent: null, held: -1, waiting: [] };
  const find = (selector) => document.querySelector(selector);
  const make = (tag, properties = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };
  const draw = (tag, attributes, parent) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    parent.append(element);
    return element;
  };
  let send = () => {};

  // What was sent and is not answered yet counts as done here: the name can be typed before the mask is there.
  function act(name, ...values) {
    state.sent += 1;
    if (name !== "frame") state.frame = null;
    if (name !== "bend") Object.assign(state, { bent: null, held: -1 });
    // Calls may overtake one another on their way: each has all acts that are not answered yet.
    state.waiting = state.waiting.filter(({ number }) => number > (state.scene.number ?? 0));
    state.waiting.push({ act: name, values, number: state.sent });
    send({ acts: state.waiting });
  }

  // Shows or hides a part of the tools.
  function toggle(selector, visible) {
    find(selector).hidden = !visible;
  }

  function setDraft(draft) {
    const field = find("#label input");
    if (draft && !state.draft) {
      field.value = state.label;
      state.touched = false;
    }
    if (!draft && state.draft) {
      if (field === document.activeElement) find("#photo").focus({ preventScroll: true });
      if (clickMode() !== "add") find("#click input").checked = true;
      state.corner = null;
    }
    state.draft = draft;
    toggle("#drafting", draft);
    if (draft) toggle("#judging", false);
  }

  const clickMode = () => find("#click input:checked").value;

  function show(scene) {
    if (scene.number < (state.scene.number ?? 0)) return; // a tick that began before the last act
    const before = state.scene, photo = find("#photo"), image = find("#photo img");
    state.scene = scene;
    if (scene.photo !== before.photo || scene.url !== before.url) {
      image.hidden = !scene.url;
      if (scene.url) image.src = scene.url;
      fit();
    }
    image.alt = scene.photo ? `${scene.photo}: ${scene.counts || "nothing found"}` : "";
    find("#title").replaceChildren(
      make("b", { textContent: scene.title ?? "" }), ` ${scene.counts} `, make("span", { className: "hint", textContent: scene.hint })
    );
    for (const way of ["undo", "redo"]) {
      const button = find(`#${way}`), name = way[0].toUpperCase() + way.slice(1);
      button.disabled = scene[way] === null;
      button.textContent = button.title = scene[way] === null ? name : `${name} ${scene[way]}`;
    }
    find("#reviewed").setAttribute("aria-pressed", scene.reviewed);
    for (const one of document.querySelectorAll("#gallery button")) {
      if (one.dataset.photo === scene.photo) one.setAttribute("aria-current", "true");
      else one.removeAttribute("aria-current");
    }
    if (scene.number >= state.sent) {
      setDraft(scene.masks.length > 0);
      const item = scene.items[scene.selected];
      toggle("#judging", item !== undefined);
      find("#chosen").textContent = item ? item.words : "";
      if (item === undefined || scene.selected !== before.selected) find("#other input").value = "";
    }
    if (scene.archive && scene.archive !== before.archive) make("a", { href: scene.archive, download: "" }).click();
    timeline();
    find("#choice").hidden = scene.masks.length < 2;
    find("#choice div").replaceChildren(...scene.masks.map((mask, index) => {
      const button = make("button", { type: "button", textContent: mask.share, title: `mask ${index + 1} of ${scene.masks.length}` });
      button.setAttribute("aria-pressed", index === scene.chosen);
      button.onclick = () => { act("choose", index); focusName(); };
      for (const event of ["pointerenter", "focus"]) button.addEventListener(event, () => paint(index));
      for (const event of ["pointerleave", "blur"]) button.addEventListener(event, () => paint());
      return button;
    }));
    paint();
    chips();
  }

  // The time line of a video: pictures, a slider, and a row for each track.
  function timeline() {
    const { video } = state.scene;
    toggle("#video", Boolean(video));
    if (!video) return;
    if (state.sent <= state.scene.number) {
      if (state.frame !== null && state.frame !== video.number) act("frame", state.frame);
      else state.frame = null;
    }
    const last = Math.max(video.count - 1, 1), slider = find("#frame");
    slider.max = video.count - 1;
    if (state.frame === null) slider.value = video.number;
    slider.setAttribute("aria-valuetext", `frame ${video.number}, ${video.seconds} s`);
    find("#time").textContent = `${video.seconds.toFixed(2)} s, ${video.number} of ${video.count - 1}`;
    find("#strip").replaceChildren(...video.strip.map(([number, url]) => {
      const button = make("button", { type: "button", title: `frame ${number}` }, make("img", { src: url, alt: `frame ${number}` }));
      button.onclick = () => seek(number);
      return button;
    }), ...video.chosen.map((number) => {
      const mark = make("i", { title: `frame ${number} is among the photos` });
      mark.style.left = `${100 * number / last}%`;
      return mark;
    }));
    find("#tracks").replaceChildren(...video.tracks.flatMap((track) => {
      const words = `${track.label} ${track.id}`, times = `${words}: ${track.from.toFixed(2)} to ${track.to.toFixed(2)} s`;
      const name = make("button", { type: "button", title: times }, words, make("span", { textContent: `${track.from.toFixed(1)}-${track.to.toFixed(1)} s` }));
      const bar = make("div"), part = make("button", { type: "button", title: times });
      part.setAttribute("aria-label", times);
      Object.assign(part.style, {
        left: `${100 * track.first / last}%`, width: `${100 * (track.last - track.first) / last}%`, background: track.color,
      });
      name.onclick = () => seek(track.first);
      part.onclick = (event) => {
        const share = event.detail ? event.offsetX / part.clientWidth : 0; // no place where a key pressed it
        seek(Math.round(track.first + share * (track.last - track.first)));
      };
      bar.append(part);
      return [name, bar];
    }));
    const [done, count] = video.tracking ?? [];
    find("#tracking").textContent = video.problem || (video.tracking ? count ? `${done} of ${count} frames` : "starting"
      : !video.complete ? "the video is being read" : video.outdated ? "the references have changed since"
      : video.found && !video.tracks.length ? "no track was found" : "");
    find("#track").disabled = Boolean(video.tracking) || !video.complete;
    toggle("#stop_tracking", Boolean(video.tracking));
    toggle("#pack_tracks", video.found && !video.tracking);
  }

  // Opens a frame; while one is being opened, only the last one that is asked for is opened next.
  function seek(number) {
    const { video, number: answered } = state.scene;
    if (!video) return;
    state.frame = Math.min(Math.max(number, 0), video.count - 1);
    find("#frame").value = state.frame;
    if (state.sent <= answered) act("frame", state.frame);
  }
  const step = (by) => seek((state.frame ?? state.scene.video?.number) + by);

  // Draws the outlines; another mask than the chosen one where its button is hovered over.
  function paint(hovered) {
    const { scene } = state, svg = find("#photo svg");
    svg.replaceChildren();
    if (!scene.width) return;
    svg.setAttribute("viewBox", `0 0 ${scene.width} ${scene.height}`);
    scene.items.forEach((item, index) => {
      const chosen = index === scene.selected ? " chosen" : "";
      draw("path", { d: item.path, class: "halo" + chosen }, svg);
      const path = draw("path", { d: item.path, class: "item" + chosen, stroke: item.color, fill: item.color }, svg);
      draw("title", {}, path).textContent = item.words;
    });
    for (const track of scene.video?.outlines ?? []) {
      draw("path", { d: track.path, class: "halo" }, svg);
      draw("path", { d: track.path, class: "track", stroke: track.color }, svg);
    }
    const mask = scene.masks[hovered ?? scene.chosen];
    if (mask) {
      draw("path", { d: mask.path, class: "halo" }, svg);
      draw("path", { d: mask.path, class: "draft" }, svg);
    }
    state.marks = [];
    const corner = state.corner ? [state.corner] : [];
    for (const [points, kind] of [[[...scene.points, ...corner], "on"], [scene.negative_points, "off"]]) {
      for (const [x, y] of points) state.marks.push(draw("circle", { cx: x + 0.5, cy: y + 0.5, class: kind }, svg));
    }
    if (bending()) {
      polygon().forEach(([x, y], index) => {
        state.marks.push(draw("circle", { cx: x + 0.5, cy: y + 0.5, class: index === state.held ? "corner held" : "corner" }, svg));
      });
    }
    place();
  }

  // The corners of the draft's outline, which can be dragged. Those that a person has bent stay until another act.
  const bending = () => state.draft && clickMode() === "bend" && state.scene.masks.length > 0;
  const polygon = () => state.bent ?? state.scene.corners;

  function bend(moved, held = -1) {
    const before = polygon();
    Object.assign(state, { bent: moved, held });
    act("bend", before, moved);
    paint();
  }

  // The corner at a pixel; or, with the pixel in it, a new polygon: the corner is put where it lengthens the outline least.
  function cornerAt([x, y]) {
    const far = polygon().map(([a, b]) => Math.hypot(a - x, b - y)), nearest = far.indexOf(Math.min(...far));
    return far[nearest] * scale() < 12 ? nearest : -1;
  }
  function withCorner(at) {
    const corners = polygon(), way = (a, b) => Math.hypot(a[0] - b[0], a[1] - b[1]);
    const longer = corners.map((one, index) => way(one, at) + way(at, corners[(index + 1) % corners.length]) - way(one, corners[(index + 1) % corners.length]));
    const place = longer.indexOf(Math.min(...longer)) + 1;
    return [corners.toSpliced(place, 0, at), place];
  }

  // The size of the photo's pixels on the screen where it fits, and now.
  const fitted = () => {
    const frame = find("#photo"), { width, height } = state.scene;
    return Math.min(frame.clientWidth / width, frame.clientHeight / height);
  };
  const scale = () => fitted() * state.zoom;

  function fit() {
    Object.assign(state, { zoom: 1, x: 0, y: 0 });
    place();
  }

  // Puts the photo where it belongs, and the labels on it where there is room.
  function place() {
    const { scene } = state, frame = find("#photo"), stage = find("#stage");
    if (!scene.width) find("#labels").replaceChildren(); // a photo that cannot be read
    if (!scene.width || !frame.clientWidth) return;
    const size = scale(), width = scene.width * size, height = scene.height * size;
    const within = (value, room, side) => (side <= room ? (room - side) / 2 : Math.min(Math.max(value, room - side), 0));
    state.x = within(state.x, frame.clientWidth, width);
    state.y = within(state.y, frame.clientHeight, height);
    Object.assign(stage.style, { left: `${state.x}px`, top: `${state.y}px`, width: `${width}px`, height: `${height}px` });
    stage.classList.toggle("pixels", size > 4);
    frame.classList.toggle("zoomed", state.zoom > 1);
    for (const mark of state.marks ?? []) mark.setAttribute("r", 6 / size);
    find("#zoom").textContent = `${Math.round(100 * size)} %`;
    const labels = find("#labels"), taken = [];
    labels.replaceChildren();
    for (const item of [...(scene.video?.outlines ?? []), ...scene.items]) {
      const label = make("span", { textContent: item.text });
      label.style.background = item.color;
      label.style.color = item.ink;
      labels.append(label);
      const [left, top, right, bottom] = item.box.map((value) => value * size), w = label.offsetWidth, h = label.offsetHeight;
      const x = Math.max(Math.min(left, width - w), 0);
      const y = [top - h, bottom, top].find((y) => y >= 0 && y + h <= height
        && taken.every((one) => x >= one[2] || x + w <= one[0] || y >= one[3] || y + h <= one[1]));
      if (y === undefined) { label.remove(); continue; }
      taken.push([x, y, x + w, y + h]);
      Object.assign(label.style, { left: `${x}px`, top: `${y}px` });
    }
  }

  // Zooms so that the photo stays where it is at a position of the frame, by default its middle.
  function zoom(by, x = find("#photo").clientWidth / 2, y = find("#photo").clientHeight / 2) {
    if (!state.scene.width) return;
    const most = Math.max(8, 16 / fitted()), zoomed = Math.min(Math.max(state.zoom * by, 1), most), ratio = zoomed / state.zoom;
    state.x = x - (x - state.x) * ratio;
    state.y = y - (y - state.y) * ratio;
    state.zoom = zoomed;
    place();
  }

  function position(event) {
    const frame = find("#photo").getBoundingClientRect();
    return [event.clientX - frame.left, event.clientY - frame.top];
  }

  function pixel(event) {
    const [x, y] = position(event), { width, height } = state.scene;
    const within = (value, side) => Math.min(Math.max(Math.floor(value / scale()), 0), side - 1);
    return [within(x - state.x, width), within(y - state.y, height)];
  }

  function focusName() {
    if (!state.draft) return;
    const field = find("#label input");
    field.focus({ preventScroll: true });
    if (!state.touched) field.select();
  }

  function begin() {
    setDraft(true);
    focusName();
  }

  function click(event) {
    const at = pixel(event), mode = clickMode();
    if (state.draft && mode === "box") {
      if (state.corner) box(state.corner, at);
      else { state.corner = at; paint(); }
      return;
    }
    const found = !state.draft && event.target.closest(".item") !== null;
    act("click", ...at, state.draft && (mode === "take" || event.shiftKey), found);
    if (!found) return begin();
    toggle("#judging", true); // a key that comes before the answer is meant for what was clicked
    find("#chosen").textContent = "";
  }

  function box([x1, y1], [x2, y2]) {
    state.corner = null;
    act("box", Math.min(x1, x2), Math.min(y1, y2), Math.max(x1, x2) + 1, Math.max(y1, y2) + 1);
    begin();
  }

  // The mouse, a pen or fingers on the photo.
  function listen(frame) {
    const fingers = new Map();
    let from = null, moved = false, panning = false, line = [], pinch = null;
    const spread = () => {
      const [a, b] = [...fingers.values()];
      return [Math.hypot(a[0] - b[0], a[1] - b[1]), (a[0] + b[0]) / 2, (a[1] + b[1]) / 2];
    };
    frame.addEventListener("pointerdown", (event) => {
      if (!state.scene.width || event.button > 1) return;
      frame.setPointerCapture?.(event.pointerId);
      fingers.set(event.pointerId, position(event));
      if (fingers.size === 2) { pinch = spread(); moved = true; return; }
      from = event;
      moved = false;
      if (bending()) { state.held = cornerAt(pixel(event)); paint(); }
      line = [pixel(event)];
      panning = event.button === 1 || state.space || (event.pointerType === "touch" && state.zoom > 1 && !drawing() && !bending());
      event.preventDefault();
    });
    frame.addEventListener("pointermove", (event) => {
      if (!fingers.has(event.pointerId)) return;
      const before = fingers.get(event.pointerId), [x, y] = position(event);
      fingers.set(event.pointerId, [x, y]);
      if (fingers.size === 2) {
        const now = spread();
        state.x += now[1] - pinch[1];
        state.y += now[2] - pinch[2];
        zoom(now[0] / Math.max(pinch[0], 1), now[1], now[2]);
        pinch = now;
        return;
      }
      if (!from) return;
      moved ||= Math.hypot(event.clientX - from.clientX, event.clientY - from.clientY) > 5;
      if (!moved) return;
      if (panning) {
        state.x += x - before[0];
        state.y += y - before[1];
        place();
      } else if (bending()) {
        if (state.held < 0) return;
        find("#photo .line")?.remove();
        const points = polygon().with(state.held, pixel(event));
        draw("polygon", { points: points.map(([x, y]) => `${x + 0.5},${y + 0.5}`).join(" "), class: "line" }, find("#photo svg"));
      } else if (event.pointerType !== "touch" || drawing()) {
        line.push(pixel(event));
        const [[x1, y1], [x2, y2]] = [line[0], line.at(-1)];
        const corners = drawing() ? line : [[x1, y1], [x2, y1], [x2, y2], [x1, y2], [x1, y1]];
        find("#photo .line")?.remove();
        draw("polyline", { points: corners.map(([x, y]) => `${x + 0.5},${y + 0.5}`).join(" "), class: "line" }, find("#photo svg"));
      }
    });
    const drawing = () => state.draft && ["draw", "erase"].includes(clickMode());
    const end = (event) => {
      if (!fingers.delete(event.pointerId) || !from || fingers.size) return;
      const began = from, mode = clickMode();
      from = null;
      find("#photo .line")?.remove();
      if (event.type !== "pointerup") return;
      if (bending() && !panning) { if (moved && state.held >= 0) bend(polygon().with(state.held, pixel(event)), state.held); }
      else if (!moved) { if (began.button === 0 && !state.space && !drawing()) click(merged(began, event)); }
      else if (!panning && !pinch && drawing()) { act("draw", line, mode === "draw"); focusName(); }
      else if (!panning && !pinch && event.pointerType !== "touch") box(line[0], pixel(event));
      pinch = null;
    };
    const merged = (began, ended) => ({
      clientX: ended.clientX, clientY: ended.clientY, shiftKey: ended.shiftKey, target: began.target,
    });
    for (const type of ["pointerup", "pointercancel"]) frame.addEventListener(type, end);
    frame.addEventListener("touchmove", (event) => {
      if (event.touches.length > 1 || state.zoom > 1 || drawing() || bending()) event.preventDefault();
    }, { passive: false });
    frame.addEventListener("wheel", (event) => {
      if (event.deltaY > 0 && state.zoom === 1) return; // the page scrolls
      event.preventDefault();
      zoom(Math.exp(-Math.min(Math.max(event.deltaY, -100), 100) / 400), ...position(event));
    }, { passive: false });
    for (const type of ["dblclick", "mousedown"]) { // no selected text, and no scrolling by the middle button
      frame.addEventListener(type, (event) => { event.preventDefault(); if (!state.draft || bending()) frame.focus({ preventScroll: true }); });
    }
    frame.addEventListener("dblclick", (event) => {
      if (bending() && cornerAt(pixel(event)) < 0) bend(...withCorner(pixel(event)));
    });
    new ResizeObserver(place).observe(frame);
  }

  // The names of the classes as buttons, those that fit to what is typed.
  function chips() {
    for (const [field, name] of [["label", "save"], ["other", "rename"]]) {
      const text = find(`#${field} input`).value.trim().toLowerCase(), item = state.scene.items?.[state.scene.selected];
      const typed = field === "other" || state.touched ? text : "";
      find(`#${field}-classes`).replaceChildren(...state.classes.flatMap((one, index) => {
        if (!one.label.toLowerCase().includes(typed)) return [];
        if (field === "other" && item?.label === one.label) return [];
        const dot = make("i");
        dot.style.background = one.color;
        const button = make("button", { type: "button" }, dot, one.label);
        if (index < 9) button.append(make("kbd", { textContent: index + 1 }));
        button.onclick = () => choose(name, one.label);
        return [button];
      }));
    }
  }

  function choose(name, label) {
    if (name === "save") state.label = label.trim();
    if (name === "rename") return act("judge", "rename", label);
    act("save", label);
    if (label.trim()) setDraft(false);
  }

  // A class on the right. Its row stays while its references change: the window in which a color is chosen stays open.
  function row(label) {
    const color = make("input", { type: "color", title: `color of ${label}` });
    color.onchange = () => act("color_class", label, color.value);
    return make("div", {}, color, make("details"));
  }

  // The classes on the right, each with its references.
  function showClasses(classes) {
    state.classes = classes;
    const none = make("p", { className: "hint", textContent: "No class yet. Click on an object, name it, and every one like it is found." });
    const rows = classes.map((one, index) => {
      if (!state.rows.has(one.label)) state.rows.set(one.label, row(one.label));
      const own = state.rows.get(one.label);
      if (own.dataset.color !== one.color) own.firstChild.value = own.dataset.color = one.color;
      const key = index < 9 ? [make("kbd", { textContent: index + 1 })] : [];
      const name = make("span", { textContent: one.label }), count = make("b", { textContent: one.count });
      count.setAttribute("aria-label", `${one.count} ${one.count === 1 ? "object" : "objects"}`);
      const details = make("details", { open: state.open.has(one.label) }, make("summary", {}, name, ...key, count));
      details.ontoggle = () => state.open[details.open ? "add" : "delete"](one.label);
      const rename = make("button", { type: "button", textContent: "Rename", className: "rename" });
      rename.onclick = () => {
        const to = prompt(`What is the class ${one.label} called?`, one.label);
        if (to === null || to === one.label) return;
        state.open.add(to.trim());
        act("rename_class", one.label, to);
      };
      const references = one.references.map((reference) => {
        const no = reference.verdict === "wrong" ? "not this: " : "";
        const shown = make("button", { type: "button", title: no + reference.photo, className: no && "no" });
        shown.append(make("img", { src: reference.url, alt: `${no}${one.label} in ${reference.photo}`, loading: "lazy" }));
        shown.onclick = () => act("reference", reference.id);
        const forget = make("button", { type: "button", textContent: "×", title: "forget this reference", className: "forget" });
        forget.onclick = () => act("forget", reference.id);
        return make("span", {}, shown, forget);
      });
      details.append(make("div", {}, ...(one.references.length ? references : ["from a memory file"]), rename));
      own.lastChild.replaceWith(details);
      return own;
    });
    const list = find("#classes .classes"), shown = rows.length ? rows : [none];
    if (shown.length !== list.children.length || shown.some((one, index) => one !== list.children[index])) list.replaceChildren(...shown);
    chips();
  }

  // Keys: each does what a button does.
  const KEYS = {
    ArrowLeft: () => act("step", -1), ArrowRight: () => act("step", 1), r: () => press("right"), w: () => press("wrong"),
    o: () => press("outline"), t: () => press("touch"), v: () => press("reviewed"), Delete: () => press("remove"),
    Backspace: () => press("remove"), Enter: () => press("save"), Escape: () => cancel(), "+": () => zoom(1.4), "=": () => zoom(1.4),
    "-": () => zoom(1 / 1.4), 0: () => fit(), ",": () => step(-1), ".": () => step(1),
  };
  // What a key means, also with Caps Lock or Shift, and by its place on keyboards of other scripts.
  const meaning = ({ key, code }) => key.length > 1 && key !== "Process" ? key
    : (key.length > 1 || key > "~" ? code.replace(/^Key/, "") : key).toLowerCase();

  function press(name) {
    const button = find(`#${name}`);
    if (button && button.offsetParent !== null && !button.disabled) button.click();
  }
  function cancel() {
    if (state.corner) { state.corner = null; paint(); return; }
    setDraft(false);
    act("cancel");
    find("#photo").focus({ preventScroll: true });
  }

  function key(event) {
    const name = find("#label input"), other = find("#other input");
    if (!name || event.isComposing) return;
    const control = event.ctrlKey || event.metaKey, field = event.target.closest("input:not([type=radio], [type=checkbox], [type=color]), textarea, select");
    const untouched = event.target === name && !state.touched;
    const number = !control && !event.altKey && /^[1-9]$/.test(event.key) ? state.classes[event.key - 1] : undefined;
    const pressed = meaning(event);
    let done = null;
    if (event.key === "Delete" && !field && bending()) {
      done = () => { if (state.held >= 0 && polygon().length > 3) bend(polygon().toSpliced(state.held, 1)); };
    } else if (event.key === " " && !field && !event.target.closest("button, summary, a, [type=color]")) { state.space = true; done = () => {}; }
    else if (number && (untouched || !field)) {
      if (state.draft) done = () => choose("save", number.label);
      else if (!find("#judging").hidden) done = () => choose("rename", number.label);
    } else if (control && !field && pressed === "z") done = () => press(event.shiftKey ? "redo" : "undo");
    else if (control && !field && pressed === "y") done = () => press("redo");
    else if (event.key === "Enter" && event.target === name) done = () => choose("save", name.value);
    else if (event.key === "Enter" && event.target === other) done = () => choose("rename", other.value);
    else if (event.key === "Escape" && (!field || event.target === name || event.target === other)) done = cancel;
    else if (event.key === "Enter" && event.target.closest("button, summary, a, [type=color]")) return;
    else if (event.target.closest("[role=radiogroup], [type=radio]") && event.key.startsWith("Arrow")) return;
    else if (!field && !control && !event.altKey && Object.hasOwn(KEYS, pressed)) done = KEYS[pressed];
    if (!done) return;
    event.preventDefault();
    if (!event.repeat || /^Arrow|^[+=,.-]$/.test(event.key)) done();
  }

  function start(props, watch, trigger) {
    send = trigger;
    const field = find("#label input");
    listen(find("#photo"));
    for (const [id, values] of Object.entries({
      previous: ["step", -1], next: ["step", 1], undo: ["undo"], redo: ["redo"], reviewed: ["review"], right: ["judge", "right"],
      wrong: ["judge", "wrong"], remove: ["judge", "remove"], outline: ["outline"], touch: ["touch"],
    })) find(`#${id}`).onclick = () => act(...values);
    for (const [id, by] of [["before", -1], ["after", 1]]) find(`#${id}`).onclick = () => step(by);
    find("#frame").oninput = (event) => seek(Number(event.target.value));
    find("#track").onclick = () => act("track", Number(find("#every").value));
    for (const name of ["stop_tracking", "pack_tracks"]) find(`#${name}`).onclick = () => act(name);
    find("#cancel").onclick = cancel;
    find("#save").onclick = () => choose("save", field.value);
    find("#rename").onclick = () => choose("rename", find("#other input").value);
    find("#in").onclick = () => zoom(1.4);
    find("#out").onclick = () => zoom(1 / 1.4);
    find("#zoom").onclick = fit;
    for (const input of [field, find("#other input")]) {
      input.addEventListener("input", () => { state.touched ||= input === field; chips(); });
    }
    find("#click").addEventListener("change", () => { state.corner = null; paint(); });
    find("#photo img").addEventListener("error", () => { // it was removed on the server
      if (state.again === state.scene.url) return;
      state.again = state.scene.url;
      state.scene.url = null;
      act("choose", -1);
    });
    follow(props, watch, show);
  }

  function table(props, watch) {
    follow(props, watch, showClasses);
  }

  // Shows a value now, and whenever it changes.
  function follow(props, watch, use) {
    const update = () => { if (props.value) use(JSON.parse(props.value)); };
    watch("value", update);
    update();
  }

  document.addEventListener("keydown", key);
  document.addEventListener("keyup", (event) => {
    if (event.key === " ") state.space = false;
    // Gradio takes a slider's value where the mouse lets go of it, or where the number next to it loses the focus.
    if (event.target.matches("input[type=range]") && /^(Arrow|Page|Home|End)/.test(event.key)) {
      event.target.dispatchEvent(new PointerEvent("pointerup", { bubbles: true }));
    } else if (event.target.matches("input[type=number]") && event.key === "Enter") {
      event.target.blur();
    }
  });
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-photo]");
    if (button) act("open", button.dataset.photo);
  });
  return { start, table, state };
})();
