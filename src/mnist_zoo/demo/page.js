const get = (id) => document.getElementById(id);
const canvas = get("canvas");
const paper = canvas.getContext("2d");
const SIZE = canvas.width;
const STEP = SIZE / 28;
const pen = { x: SIZE / 2, y: SIZE / 2, down: false };
const WAIT_MS = 100;
const ANNOUNCE_MS = 700;

let networks = []; // of each its name and those of its classes
let maxBytes = Infinity;
let turn = 0; // counts clearings and pictures: answers to what was there before are dropped
let isDue = false; // the drawing has changed since it was last sent
let isAsking = false;
let isPicture = false; // the paper shows an opened picture, or is about to: no drawing
let announcing;

// Drawing

function wipe() {
  paper.fillStyle = "#fff";
  paper.fillRect(0, 0, SIZE, SIZE);
  isPicture = false;
  canvas.classList.remove("picture");
  document.body.classList.remove("drawn");
}

function clear() {
  turn += 1;
  isDue = false;
  wipe();
  say("");
  show([]);
}

function line(from, to) {
  if (isPicture) clear();
  paper.strokeStyle = "#000";
  paper.lineWidth = SIZE / 14;
  paper.lineCap = "round";
  paper.beginPath();
  paper.moveTo(from.x, from.y);
  paper.lineTo(to.x + 0.01, to.y); // a line of no length would not be a dot
  paper.stroke();
  document.body.classList.add("drawn");
  isDue = true;
  ask();
}

function place(event) {
  const box = canvas.getBoundingClientRect();
  return {
    x: ((event.clientX - box.left) * SIZE) / box.width,
    y: ((event.clientY - box.top) * SIZE) / box.height,
  };
}

let pointer = null; // the one that draws: its id and where it was last

canvas.addEventListener("pointerdown", (event) => {
  if (pointer || event.button !== 0) return;
  canvas.setPointerCapture(event.pointerId);
  pointer = { id: event.pointerId, at: place(event) };
  line(pointer.at, pointer.at);
});

canvas.addEventListener("pointermove", (event) => {
  if (pointer?.id !== event.pointerId) return;
  const passed = event.getCoalescedEvents?.() ?? [];
  for (const part of passed.length ? passed : [event]) {
    const to = place(part);
    line(pointer.at, to);
    pointer.at = to;
  }
});

for (const end of ["pointerup", "pointercancel"]) {
  canvas.addEventListener(end, (event) => {
    if (pointer?.id === event.pointerId) pointer = null;
  });
}

// The keyboard

const ARROWS = {
  ArrowLeft: [-STEP, 0],
  ArrowRight: [STEP, 0],
  ArrowUp: [0, -STEP],
  ArrowDown: [0, STEP],
};

function showPen() {
  const mark = get("pen");
  mark.style.left = `${(100 * pen.x) / SIZE}%`;
  mark.style.top = `${(100 * pen.y) / SIZE}%`;
  mark.classList.toggle("down", pen.down);
}

function within(value) {
  return Math.min(Math.max(value, STEP), SIZE - STEP);
}

canvas.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const from = { ...pen };
  if (event.key in ARROWS) {
    const [x, y] = ARROWS[event.key];
    pen.x = within(pen.x + x);
    pen.y = within(pen.y + y);
  } else if (event.key === " ") {
    if (event.repeat) return event.preventDefault();
    pen.down = !pen.down;
    announce(pen.down ? "Pen down" : "Pen up", 0);
  } else {
    return;
  }
  event.preventDefault();
  if (pen.down) line(from, pen);
  showPen();
});

function startAgain() {
  Object.assign(pen, { x: SIZE / 2, y: SIZE / 2, down: false });
  showPen();
  clear();
  announce("Cleared", 0);
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape") startAgain();
});

get("clear").addEventListener("click", startAgain);

// Pictures

async function open(file) {
  pen.down = false;
  showPen();
  clear();
  if (file.size > maxBytes) {
    say(`${file.name} is larger than ${Math.floor(maxBytes / 1e6)} megabytes.`);
    return;
  }
  isPicture = true;
  const mine = turn;
  if (!(await predict(file))) return;
  // What the server reads but this browser does not, such as TIFF, is answered but not shown.
  const bitmap = await createImageBitmap(file).catch(() => null);
  if (!bitmap || mine !== turn) return;
  const scale = SIZE / Math.max(bitmap.width, bitmap.height);
  const [width, height] = [bitmap.width * scale, bitmap.height * scale];
  canvas.classList.add("picture");
  document.body.classList.add("drawn");
  paper.drawImage(bitmap, (SIZE - width) / 2, (SIZE - height) / 2, width, height);
}

get("open").addEventListener("click", () => get("file").click());

get("file").addEventListener("change", ({ target }) => {
  if (target.files[0]) open(target.files[0]);
  target.value = ""; // so that the same file can be chosen again
});

document.addEventListener("paste", (event) => {
  const file = event.clipboardData.files[0];
  if (file) open(file);
});

document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dropping");
});

document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("dropping");
});

document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dropping");
  const file = event.dataTransfer.files[0];
  if (file) open(file);
});

// Asking the networks

// One question at a time: while one draws, the newest state of the drawing comes next.
async function ask() {
  if (isAsking) return;
  isAsking = true;
  while (isDue) {
    isDue = false;
    const mine = turn;
    const drawing = await new Promise((done) => canvas.toBlob(done));
    if (mine === turn) await predict(drawing);
    await new Promise((done) => setTimeout(done, WAIT_MS));
  }
  isAsking = false;
}

async function fetchJson(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error(
      "The server does not answer. If it was stopped, start mnist-zoo demo again and reload.",
    );
  }
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) {
    throw new Error(answer.error ?? `The server failed (status ${response.status}).`);
  }
  return answer;
}

// Show the answer to a picture or what went wrong; return whether there was an answer.
async function predict(blob) {
  const mine = turn;
  try {
    const headers = { "Content-Type": "application/octet-stream" };
    const { digits } = await fetchJson("predict", { method: "POST", body: blob, headers });
    await started; // one may draw before the networks are known
    if (mine !== turn) return false;
    say("");
    show(digits);
    return true;
  } catch (error) {
    if (mine === turn) {
      say(error.message);
      show([]);
    }
    return false;
  }
}

// Showing

function say(text) {
  if (get("message").textContent !== text) get("message").textContent = text;
}

function announce(text, wait = ANNOUNCE_MS) {
  clearTimeout(announcing);
  announcing = setTimeout(() => (get("announcement").textContent = text), wait);
}

function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

const best = (probabilities) => probabilities.indexOf(Math.max(...probabilities));

// As in the command line: 100 % is said of nothing less, 0 % of nothing more.
function percent(p) {
  const text = `${(100 * p).toFixed(1)} %`;
  if (text === "0.0 %" && p > 0) return "<0.1 %";
  return text === "100.0 %" && p < 1 ? ">99.9 %" : text;
}

// `digits` is as the server sends it; of none, empty charts are shown.
function show(digits) {
  get("results").classList.toggle("wide", digits.length > 1 || networks.length > 1);
  fill(get("seen"), digits.length || 1, makeSeen);
  [...get("seen").children].forEach((seen, i) => showSeen(seen, digits[i]?.image));
  const lines = [];
  [...get("networks").children].forEach((card, n) => {
    const read = digits.map((digit) => digit.networks[n].probabilities);
    showCard(card, read, networks[n].classes);
    if (read.length && !card.hidden) {
      const [first] = read;
      const sure = read.length === 1 ? `, ${percent(first[best(first)])}` : "";
      const { name, classes } = networks[n];
      const words = read.map((probabilities) => classes[best(probabilities)]).join(" ");
      lines.push(`${networks.length > 1 ? `${name}: ` : ""}${words}${sure}`);
    }
  });
  announce(lines.join(". "));
}

// Give a parent so many children, and keep those that are there.
function fill(parent, count, create) {
  while (parent.children.length > count) parent.lastElementChild.remove();
  while (parent.children.length < count) parent.append(create());
}

function makeSeen() {
  const seen = make("canvas");
  seen.width = seen.height = 28;
  seen.setAttribute("role", "img");
  return seen;
}

function showSeen(seen, image) {
  const pixels = new ImageData(28, 28); // transparent
  image?.flat().forEach((value, i) => pixels.data.set([value, value, value, 255], 4 * i));
  seen.getContext("2d").putImageData(pixels, 0, 0);
  seen.setAttribute("aria-label", image ? "The digit in 28 × 28 pixels" : "Nothing yet");
}

function makeCard({ name, classes }) {
  const card = make("article", "network");
  card.append(make("h3", "", name), make("p", "best"), make("div", "charts"));
  showCard(card, [], classes);
  return card;
}

function showCard(card, read, classes) {
  const sum = card.querySelector(".best");
  const between = classes.some((name) => name.length > 1) ? " " : "";
  sum.replaceChildren(read.map((probabilities) => classes[best(probabilities)]).join(between));
  if (read.length === 1) sum.append(" ", make("small", "", percent(Math.max(...read[0]))));
  const charts = card.querySelector(".charts");
  fill(charts, read.length || 1, () => makeBars(classes));
  [...charts.children].forEach((bars, i) => {
    const which = read.length > 1 ? ` for number ${i + 1}` : "";
    bars.setAttribute("aria-label", `Probabilities of the ten classes${which}`);
    if (which) bars.dataset.which = `Number ${i + 1}: ${classes[best(read[i])]}`;
    else delete bars.dataset.which;
    showBars(bars, read[i]);
  });
}

function makeBars(classes) {
  const bars = make("ol", "bars");
  bars.setAttribute("role", "list"); // without bullets, Safari would not call it one
  bars.style.setProperty("--label", `${Math.max(...classes.map((name) => name.length))}ch`);
  for (const name of classes) {
    const row = make("li");
    const track = make("span", "track");
    track.append(make("span", "bar"));
    row.append(make("span", "label", name), track, make("span", "value"));
    bars.append(row);
  }
  return bars;
}

function showBars(bars, probabilities) {
  [...bars.children].forEach((row, digit) => {
    const p = probabilities?.[digit];
    row.classList.toggle("top", p !== undefined && digit === best(probabilities));
    row.querySelector(".bar").style.width = `${100 * (p ?? 0)}%`;
    row.querySelector(".value").textContent = p === undefined ? "" : percent(p);
  });
}

function makeChoice({ name }, n) {
  const label = make("label");
  const box = make("input");
  box.type = "checkbox";
  box.checked = true;
  box.addEventListener("change", () => (get("networks").children[n].hidden = !box.checked));
  label.append(box, name);
  return label;
}

async function start() {
  wipe();
  showPen();
  show([]);
  try {
    const settings = await fetchJson("settings");
    networks = settings.networks;
    maxBytes = settings.max_bytes;
  } catch (error) {
    say(error.message);
    return;
  }
  get("networks").append(...networks.map(makeCard));
  get("choice").append(...networks.map(makeChoice));
  get("choice").hidden = networks.length < 2;
  show([]);
}

const started = start();
