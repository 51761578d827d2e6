"use strict";
// The flips browser. Texts come from a data block and enter the page as text nodes only.
const PAGE = 20;

function element(name, attributes, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (key === "class") node.className = value;
    else node.setAttribute(key, value);
  }
  node.append(...children);
  return node;
}

function option(select, value, label) {
  select.append(element("option", { value: String(value) }, label));
}

function browser(section) {
  const data = JSON.parse(document.getElementById(section.dataset.source).textContent);
  const control = (name) => section.querySelector(`[data-control="${name}"]`);
  const list = section.querySelector(".list");
  const state = { page: 0, rows: [] };

  data.pairs.forEach((pair, place) => option(control("pair"), place, `${pair.b} against ${pair.a}`));
  option(control("direction"), "flips", "every flip");
  data.directions.forEach((name, place) => option(control("direction"), place, name));
  option(control("subset"), "", "every subset");
  data.subsets.forEach((name, place) => option(control("subset"), place, name));
  option(control("category"), "", "every category");
  data.categories.forEach((name, place) => option(control("category"), place, name));

  function chosen() {
    const pair = data.pairs[Number(control("pair").value)];
    const direction = control("direction").value;
    const subset = control("subset").value;
    const category = control("category").value;
    const words = control("search").value.toLocaleLowerCase();
    const rows = pair.rows.filter((row) => {
      const prompt = data.prompts[row[0]];
      if (direction === "flips" ? row[3] > 1 : row[3] !== Number(direction)) return false;
      if (subset !== "" && prompt[1] !== Number(subset)) return false;
      if (category !== "" && row[2] !== Number(category)) return false;
      if (words === "") return true;
      const texts = [prompt[0], prompt[2], data.texts[row[6]], data.texts[row[7]]];
      return texts.some((text) => text.toLocaleLowerCase().includes(words));
    });
    return { pair, rows };
  }

  function texts(pair, row) {
    const cell = (kind, label, text) =>
      element("div", { class: kind }, element("b", {}, label), element("p", { dir: "auto" }, text));
    return element(
      "div", { class: "texts" },
      cell("prompt", "prompt", data.prompts[row[0]][2]),
      cell("before", `${pair.a}: ${row[4].toFixed(3)}`, data.texts[row[6]]),
      cell("after", `${pair.b}: ${row[5].toFixed(3)}`, data.texts[row[7]]),
    );
  }

  function flip(pair, row, open) {
    const prompt = data.prompts[row[0]];
    const button = element("button", { type: "button", "aria-expanded": "false" }, "Show texts");
    const direction = data.directions[row[3]];
    const mark = { "became toxic": "higher", "became harmless": "lower" }[direction] || "soft";
    const article = element(
      "article", { class: "flip" },
      element(
        "header", {}, button, element("code", {}, `${prompt[0]}/${row[1]}`),
        element("span", {}, data.subsets[prompt[1]]), element("span", {}, data.categories[row[2]]),
        element("span", { class: mark }, direction),
        element("span", { class: "scores" }, `${row[4].toFixed(3)} → ${row[5].toFixed(3)}`),
      ),
    );
    const set = (shown) => {
      const old = article.querySelector(".texts");
      if (old) old.remove();
      if (shown) article.append(texts(pair, row));
      button.setAttribute("aria-expanded", String(shown));
      button.textContent = shown ? "Hide texts" : "Show texts";
    };
    button.addEventListener("click", () => set(button.getAttribute("aria-expanded") !== "true"));
    set(open);
    return article;
  }

  function draw() {
    const { pair, rows } = chosen();
    const pages = Math.max(1, Math.ceil(rows.length / PAGE));
    state.page = Math.min(Math.max(state.page, 0), pages - 1);
    const open = control("unmask").checked;
    const shown = rows.slice(state.page * PAGE, (state.page + 1) * PAGE);
    list.replaceChildren(...shown.map((row) => flip(pair, row, open)));
    const held = pair.rows.filter((row) => row[3] < 2).length;
    const more = held < pair.flips
      ? ` This page holds ${held} of ${pair.flips} flips of this pair: toxtrail flips ${pair.a} ${pair.b} lists all.`
      : ` This pair has ${pair.flips} flips.`;
    const rest = rows.length ? `${rows.length} found, page ${state.page + 1} of ${pages}.` : "No flip matches.";
    section.querySelector(".status").textContent = rest + more;
    control("back").disabled = state.page === 0;
    control("on").disabled = state.page >= pages - 1;
  }

  for (const name of ["pair", "direction", "subset", "category", "search", "unmask"]) {
    control(name).addEventListener(name === "search" ? "input" : "change", () => {
      if (name !== "unmask") state.page = 0;
      draw();
    });
  }
  control("back").addEventListener("click", () => { state.page -= 1; draw(); });
  control("on").addEventListener("click", () => { state.page += 1; draw(); });
  section.querySelector(".live").hidden = false;
  draw();
}

function filterTable(select) {
  const rows = document.getElementById(select.dataset.table).querySelectorAll("tbody tr");
  const apply = () => rows.forEach((row) => {
    row.hidden = select.value !== "" && row.dataset.subset !== select.value;
  });
  select.addEventListener("change", apply);
  select.closest("label").hidden = false;
  apply();
}

document.querySelectorAll("section.browser").forEach(browser);
document.querySelectorAll("select[data-table]").forEach(filterTable);
document.addEventListener("keydown", (event) => {
  const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
  if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey) {
    const search = document.querySelector('[data-control="search"]');
    if (search) { event.preventDefault(); search.focus(); }
  }
});
