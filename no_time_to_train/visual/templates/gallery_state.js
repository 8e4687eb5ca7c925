// What the page knows and what is chosen: no element is touched here.

const data = JSON.parse(document.getElementById("data").textContent);
const { classes, images } = data;
const instances = images.flatMap((image) => image.instances);
const scores = instances.map((one) => one.score);
const best = images.reduce((top, image) => {
  const first = image.instances.reduce((a, b) => (a && a.score >= b.score ? a : b), null);
  return first && (!top || first.score > top.instance.score) ? { image, instance: first } : top;
}, null);

const chosen = {
  threshold: 0,
  classThresholds: classes.map(() => null), // null: the threshold of all classes
  off: classes.map(() => false),
  search: "",
  sort: "name",
  reversed: false,
  empty: false,
  truth: false,
  byInstance: data.byInstance,
};

// The range of the sliders holds every score and every threshold that the page begins with.
const range = { low: 0, high: 1 };
{
  const given = [data.score, ...Object.values(data.classScores)].filter((one) => one !== null);
  const all = scores.concat(given);
  if (all.length) {
    range.low = Math.max(Math.floor(20 * all.reduce((a, b) => Math.min(a, b)) + 1e-9) / 20, 0);
    range.high = Math.min(Math.ceil(20 * all.reduce((a, b) => Math.max(a, b)) - 1e-9) / 20, 1);
    if (range.high - range.low < 0.05) range.low = Math.max(range.high - 0.05, 0);
  }
  chosen.threshold = data.score ?? range.low;
  classes.forEach((one, index) => (chosen.classThresholds[index] = data.classScores[one.name] ?? null));
}

const threshold = (index) => chosen.classThresholds[index] ?? chosen.threshold;
const kept = (one) => !chosen.off[one.class] && one.score >= threshold(one.class);
const color = (one) => (chosen.byInstance ? data.tints[one.tint] : classes[one.class].color);
/** Large instances first, so that small ones lie on top. */
const bySize = (all) => [...all].sort((a, b) => b.box[2] * b.box[3] - a.box[2] * a.box[3]);
const plural = (count, noun) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
const decimals2 = (score) => (Math.floor(100 * score + 1e-9) / 100).toFixed(2);
const decimals = (score) => (score.toFixed(2) == score ? score.toFixed(2) : String(score));

const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });
images.forEach((image, index) => {
  image.index = index;
  image.visible = true;
  image.lowered = image.name.toLowerCase();
  // As in instances.csv: first what the page begins with, in the order of the scores.
  const order = [...image.instances].sort((a, b) => kept(b) - kept(a) || b.score - a.score);
  order.forEach((one, position) => (one.number = position + 1));
});
[...images].sort((a, b) => collator.compare(a.name, b.name)).forEach((image, rank) => (image.rank = rank));

/** Count what is kept: sets `count` and `visible` of each image; returns totals, and the counts of the classes. */
function select() {
  const thresholds = classes.map((_, index) => threshold(index));
  const found = { instances: 0, images: 0, classes: classes.map(() => 0) };
  const search = chosen.search.trim().toLowerCase();
  for (const image of images) {
    const matches = image.lowered.includes(search);
    let count = 0;
    for (const one of image.instances) {
      if (one.score < thresholds[one.class]) continue;
      if (matches) found.classes[one.class] += 1;
      if (!chosen.off[one.class]) count += 1;
    }
    image.count = count;
    image.visible = matches && (count > 0 || chosen.empty);
    if (image.visible) {
      found.images += 1;
      found.instances += count;
    }
  }
  return found;
}

/** The images in the chosen order. */
function sorted() {
  const top = (image) => image.instances.reduce((most, one) => (kept(one) ? Math.max(most, one.score) : most), -1);
  const key = {
    name: (image) => image.rank,
    count: (image) => -image.count,
    score: (image) => -top(image),
  }[chosen.sort];
  const sign = chosen.reversed ? -1 : 1;
  const keyed = images.map((image) => [key(image), image]);
  return keyed.sort((a, b) => sign * (a[0] - b[0]) || a[1].rank - b[1].rank).map((pair) => pair[1]);
}

/** The parts of the command line that keeps the chosen thresholds, quoted for a POSIX shell. */
function commandParts() {
  const quoted = (text) => (/^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'"'"'`)}'`);
  const parts = [data.command.trim(), "--threshold", String(chosen.threshold)];
  classes.forEach((one, index) => {
    const own = chosen.classThresholds[index];
    if (own === null) return;
    const value = `${one.name}=${own}`;
    // A value that begins with a dash must not look like an option.
    parts.push(...(value.startsWith("-") ? [quoted(`--class-score=${value}`)] : ["--class-score", quoted(value)]));
  });
  return parts;
}
