"use strict";
// The labelling page. Texts come from a data block and enter the page as text nodes only.
const sheet = JSON.parse(document.getElementById("sheet").textContent);
const rows = sheet.rows;
const by = (id) => document.getElementById(id);
const STORED = `toxtrail labels ${sheet.sha256} `;
const MARKS = { yes: "y", no: "n", "": "-" };
const WORDS = { y: "yes", n: "no", "-": "" };
const state = { name: "", labels: [], at: 0, shown: false, undo: [], downloaded: "" };

// --- labels kept in the browser ---------------------------------------------------------------

function attempt(action) {
  try {
    return action();
  } catch (error) {
    by("volatile").hidden = false;
    return null;
  }
}

function packed() {
  return state.labels.map((word) => MARKS[word]).join("");
}

function stored(name) {
  const marks = attempt(() => localStorage.getItem(STORED + name)) || "";
  return marks.length === rows.length && /^[yn-]+$/.test(marks) ? marks : null;
}

function keep() {
  attempt(() => localStorage.setItem(STORED + state.name, packed()));
}

function read() {
  const kept = stored(state.name);
  state.labels = rows.map((row, i) => (kept && WORDS[kept[i]]) || sheet.labels[i]);
  return kept;
}

// --- the sheet as CSV ---------------------------------------------------------------------------

function csvCell(value) {
  return /[",\r\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value;
}

function csv() {
  const toxic = sheet.columns.indexOf("toxic");
  const lines = rows.map((row, i) => row.map((value, column) =>
    column === toxic && state.labels[i] !== sheet.labels[i] ? state.labels[i] : value));
  return [sheet.columns, ...lines].map((line) => line.map(csvCell).join(",") + "\n").join("");
}

function parseCsv(text) {
  const header = text.split(/[\r\n]/, 1)[0];
  const mark = header.includes(",") ? "," : header.includes(";") ? ";" : "\t";
  const lines = [[]];
  let cell = "", quoted = false;
  for (let i = 0; i < text.length; i += 1) {
    const c = text[i];
    if (quoted) {
      if (c !== '"') cell += c;
      else if (text[i + 1] === '"') { cell += c; i += 1; } else quoted = false;
    } else if (c === '"') quoted = true;
    else if (c === mark) { lines.at(-1).push(cell); cell = ""; }
    else if (c === "\n" || c === "\r") {
      if (c === "\r" && text[i + 1] === "\n") i += 1;
      lines.at(-1).push(cell); cell = ""; lines.push([]);
    } else cell += c;
  }
  if (quoted) throw new Error("double quotes are opened and never closed");
  lines.at(-1).push(cell);
  return lines.filter((line) => line.length > 1 || line[0].trim() !== "");
}

function plain(text) {
  return text.replace(/[^0-9A-Za-z]/g, "").slice(0, 1000);
}

// The labels of a file of this sheet, by row; throws an Error that names the row.
function labelsOf(text) {
  const [names, ...lines] = parseCsv(text.replace(/^\ufeff/, ""));
  const [id, words, texts] = ["id", "toxic", "text"].map((name) => names.indexOf(name));
  if (id < 0 || words < 0) throw new Error("the columns id and toxic are missing");
  const found = new Map();
  lines.forEach((line, n) => {
    const where = `row ${n + 1}`;
    if (line.length !== names.length) throw new Error(`${where} has ${line.length} cells, the header ${names.length}`);
    const i = rows.findIndex((row) => row[0] === line[id].trim());
    if (i < 0) throw new Error(`${where}: this sheet has no id "${line[id]}"`);
    if (found.has(i)) throw new Error(`${where}: the id "${line[id]}" occurs twice`);
    if (texts >= 0 && line[texts] !== "" && plain(line[texts]) !== plain(rows[i][1])) {
      throw new Error(`${where}: this is not the text of ${line[id]}`);
    }
    const word = line[words].trim().toLowerCase();
    const label = word === "" ? "" : sheet.yes.includes(word) ? "yes" : sheet.no.includes(word) ? "no" : null;
    if (label === null) throw new Error(`${where}: "${word}" under toxic is neither yes nor no`);
    found.set(i, label);
  });
  return found;
}

async function load(file) {
  by("problem").hidden = true;
  try {
    const found = labelsOf(await file.text());
    const before = [...state.labels];
    for (const i of sheet.open) state.labels[i] = found.get(i) || state.labels[i];
    const changed = before.filter((word, i) => word !== state.labels[i]).length;
    if (changed) state.undo.push({ labels: before, at: state.at });
    keep();
    go(firstEmpty(0), `${file.name}: ${changed} labels loaded.`);
  } catch (error) {
    by("problem").textContent = `${file.name} was not loaded: ${error.message}.`;
    by("problem").hidden = false;
  }
}

function download() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([csv()], { type: "text/csv;charset=utf-8" }));
  link.download = `${sheet.name}-${state.name}.csv`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  state.downloaded = packed();
  draw(`${link.download}: ${labelled()} of ${sheet.open.length} texts labelled.`);
}

// --- moving and labelling: positions count the rows that are to be labelled --------------------

const row = () => sheet.open[state.at];
const labelled = () => sheet.open.filter((i) => state.labels[i] !== "").length;

function firstEmpty(from) {
  const empty = (i) => state.labels[i] === "";
  const after = sheet.open.findIndex((i, position) => position >= from && empty(i));
  return after >= 0 ? after : sheet.open.findIndex(empty);
}

function go(position, status = "") {
  const last = sheet.open.length - 1;
  const next = position < 0 ? state.at : Math.min(position, last);
  state.shown = by("unmask").checked || (state.shown && next === state.at);
  state.at = next;
  keep();
  draw(status);
  by("card").focus({ preventScroll: true });
}

function answer(word) {
  if (!state.shown) return draw("Show the text first.");
  state.undo.push({ labels: [...state.labels], at: state.at });
  state.labels[row()] = word;
  const said = `${rows[row()][0]}: ${word === "yes" ? "toxic" : "not toxic"}.`;
  const next = firstEmpty(state.at);
  go(next, next < 0 ? `${said} All texts are labelled: download the .csv file.` : said);
}

function undo() {
  const last = state.undo.pop();
  if (!last) return draw("There is nothing to undo.");
  state.labels = last.labels;
  state.shown = true;
  state.at = last.at;
  go(last.at, "Undone.");
}

const actions = {
  show: () => { state.shown = !state.shown; draw(); by(state.shown ? "text" : "card").focus({ preventScroll: true }); },
  yes: () => answer("yes"),
  no: () => answer("no"),
  back: () => go(Math.max(state.at - 1, 0)),
  next: () => go(state.at + 1),
  empty: () => go(firstEmpty(state.at + 1), labelled() === sheet.open.length ? "All texts are labelled: download the .csv file." : ""),
  undo,
  download,
  leave: () => { by("work").hidden = true; welcome(); },
};
const KEYS = { " ": "show", y: "yes", n: "no", u: "undo", e: "empty", d: "download", ArrowLeft: "back", ArrowRight: "next" };

function draw(status = "") {
  const word = state.labels[row()], done = labelled(), total = sheet.open.length;
  by("who").textContent = `Annotator: ${state.name}`;
  by("count").textContent = `${done} of ${total} labelled`;
  by("progress").value = done;
  by("heading").textContent = `Text ${state.at + 1} of ${total} (${rows[row()][0]})`;
  by("label").textContent = word === "" ? "no label" : word === "yes" ? "labelled: toxic" : "labelled: not toxic";
  const text = by("text");
  text.hidden = !state.shown;
  text.textContent = state.shown ? sheet.display[row()] ?? rows[row()][1] : "";
  text.scrollTop = 0;
  by("mask").hidden = state.shown;
  for (const name of ["yes", "no"]) {
    document.querySelector(`[data-action="${name}"]`).setAttribute("aria-pressed", String(word === name));
  }
  by("status").textContent = status;
  const last = sheet.open.findLastIndex((i) => state.labels[i] !== "");
  const gaps = sheet.open.filter((i, position) => position < last && state.labels[i] === "").length;
  by("gaps").hidden = gaps === 0;
  by("gaps").textContent = `${gaps} ${gaps === 1 ? "text" : "texts"} before the last labelled one have no label. `
    + "The file is not accepted until they are labelled.";
}

// --- start --------------------------------------------------------------------------------------

function begin(name) {
  state.name = name.normalize().replace(/[^\p{L}\p{N}_-]+/gu, "-").replace(/^-+|-+$/g, "");
  if (state.name === "") {
    by("annotator").setCustomValidity("Use letters or digits.");
    by("annotator").reportValidity();
    return;
  }
  state.undo = [];
  const kept = read();
  state.downloaded = packed();
  by("start").hidden = true;
  by("work").hidden = false;
  state.at = -1;
  const resumed = kept ? `Continued: ${labelled()} of ${sheet.open.length} texts are labelled.` : "";
  go(Math.max(firstEmpty(0), 0), resumed);
}

function welcome() {
  const names = attempt(() => Object.keys(localStorage)) || [];
  const buttons = names.filter((key) => key.startsWith(STORED)).sort().map((key) => {
    const name = key.slice(STORED.length), kept = stored(name);
    const button = document.createElement("button");
    button.type = "button";
    const done = kept ? sheet.open.filter((i) => kept[i] !== "-").length : 0;
    button.textContent = `Continue as ${name} (${done} of ${sheet.open.length} labelled)`;
    button.addEventListener("click", () => begin(name));
    return button;
  });
  by("saved").replaceChildren(...buttons);
  by("start").hidden = false;
  by("annotator").focus();
}

by("start").addEventListener("submit", (event) => { event.preventDefault(); begin(by("annotator").value); });
by("annotator").addEventListener("input", () => by("annotator").setCustomValidity(""));
by("import").addEventListener("change", (event) => {
  if (event.target.files.length) load(event.target.files[0]).then(() => { event.target.value = ""; });
});
by("unmask").addEventListener("change", () => go(state.at));
document.querySelectorAll("[data-action]").forEach((button) =>
  button.addEventListener("click", () => actions[button.dataset.action]()));
document.addEventListener("keydown", (event) => {
  const typing = by("work").hidden || event.ctrlKey || event.metaKey || event.altKey || !by("keys").checked;
  const own = /^(BUTTON|INPUT)$/.test(event.target.tagName) && event.key === " ";
  const action = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (typing || own || !action || (event.repeat && !event.key.startsWith("Arrow"))) return;
  event.preventDefault();
  actions[action]();
});
window.addEventListener("storage", (event) => {
  if (state.name === "" || event.key !== STORED + state.name) return;
  read();
  draw("Labels were changed in another window.");
});
window.addEventListener("beforeunload", (event) => {
  if (!by("volatile").hidden && state.name !== "" && packed() !== state.downloaded) event.preventDefault();
});
attempt(() => { localStorage.setItem(STORED, ""); localStorage.removeItem(STORED); });
welcome();
