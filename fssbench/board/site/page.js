"use strict";
// The tables are there without this script; it sorts, filters and opens them. Text of records goes
// into the page as textContent alone, never as mark-up.
(() => {
  const all = (what, within = document) => [...within.querySelectorAll(what)];
  const one = (what, within = document) => within.querySelector(what);
  const details = JSON.parse(one("#details").textContent);

  // --- sorting ---------------------------------------------------------------------------------

  const OTHER = { ascending: "descending", descending: "ascending" };

  function sort(head) {
    const table = head.closest("table");
    const order = OTHER[head.getAttribute("aria-sort")] || head.dataset.first;
    const column = head.cellIndex;
    const sign = order === "ascending" ? 1 : -1;
    const value = (row) => row.cells[column].dataset.v;
    all("thead th", table).forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", order);
    const body = table.tBodies[0];
    // The body's own rows: an opened one holds tables too.
    const ordered = [...body.rows].filter((row) => !row.matches(".detail")).sort((a, b) => {
      const [x, y] = [value(a), value(b)];
      // What is missing is last either way.
      if (x === undefined || y === undefined) return (x === undefined) - (y === undefined);
      const text = head.matches(".method, .backbone, .text");
      return sign * (text ? x.localeCompare(y, "en", { numeric: true }) : x - y);
    });
    // Rows that share a rank stand together in the order of ranks alone.
    table.classList.toggle("regrouped", !(head.matches(".rank") && order === "ascending"));
    for (const row of ordered) {
      const detail = opened(row);
      body.append(row, ...(detail ? [detail] : []));
    }
    const article = table.closest("article");
    pages.delete(article);
    page(article, all("tbody tr[data-text]", article).filter((row) => fitting.has(row)));
    say(`${article.querySelector("h3").textContent}: sorted by ${head.textContent}, ${order}.`);
  }

  // --- pages of long tables --------------------------------------------------------------------

  const SIZE = 100; // rows
  const fitting = new Set(); // rows that the filters leave
  const pages = new Map(); // number of an article's page, from 0

  // Show one page of an article's fitting rows, which are given in their order.
  function page(article, rows) {
    const number = pages.get(article) || 0;
    const shown = new Set(rows.slice(number * SIZE, (number + 1) * SIZE));
    for (const row of all("tbody tr[data-text]", article)) {
      row.hidden = !shown.has(row);
      const detail = opened(row);
      if (detail) detail.hidden = row.hidden;
    }
    one(".pages", article)?.remove();
    if (rows.length <= SIZE) return;
    const turn = (label, by) => {
      const button = make("button", { type: "button" }, label);
      button.disabled = !(rows.length > (number + by) * SIZE && number + by >= 0);
      button.addEventListener("click", () => {
        pages.set(article, number + by);
        page(article, rows);
        const same = all(".pages button", article)[by < 0 ? 0 : 1];
        (same.disabled ? all(".pages button:enabled", article)[0] : same).focus();
        one(".scroll", article).scrollIntoView();
      });
      return button;
    };
    const last = Math.min((number + 1) * SIZE, rows.length);
    const where = make("span", {}, `Rows ${number * SIZE + 1} to ${last} of ${rows.length}`);
    const nav = make("nav", { className: "pages" }, turn("Previous", -1), where, turn("Next", 1));
    nav.setAttribute("aria-label", "Pages of this table");
    one(".scroll", article).after(nav);
  }

  // --- filters ---------------------------------------------------------------------------------

  const EMPTY = { dataset: "", kind: "measured", shots: "", protocol: "", search: "", ranked: "" };
  const state = { ...EMPTY };
  const status = one("#status");
  const say = (text) => (status.textContent = text);

  function fits(article) {
    const { kind, dataset, shots, protocol } = article.dataset;
    return (
      (!state.kind || kind === state.kind) &&
      (!state.dataset || dataset === state.dataset) &&
      (!state.shots || shots === state.shots) &&
      (!state.protocol || state.kind === "published" || protocol === state.protocol)
    );
  }

  function filter() {
    const words = state.search.toLowerCase().split(/\s+/).filter(Boolean);
    const ranked = state.ranked && state.kind !== "published";
    const tables = [];
    fitting.clear();
    pages.clear();
    for (const article of all("article")) {
      const rows = all("tbody tr[data-text]", article);
      const stay = rows.filter(
        (row) =>
          fits(article) &&
          words.every((word) => row.dataset.text.includes(word)) &&
          (!ranked || "ranked" in row.dataset),
      );
      stay.forEach((row) => fitting.add(row));
      for (const row of rows) {
        marks(row).forEach((mark) => mark.classList.toggle("gone", !fitting.has(row)));
      }
      article.hidden = !stay.length;
      page(article, stay);
      if (stay.length) tables.push(article);
    }
    for (const section of all(".dataset")) {
      const visible = all("article:not([hidden])", section);
      section.hidden = !visible.length;
      const printed = visible.some((article) => article.dataset.kind === "published");
      all(".caution, .papers", section).forEach((part) => (part.hidden = !printed));
      const note = one(".note:not(.caution)", section);
      if (note) note.hidden = visible.every((article) => article.dataset.kind === "published");
    }
    one("#empty").hidden = fitting.size > 0;
    one("#clear").hidden = Object.keys(EMPTY).every((key) => state[key] === EMPTY[key]);
    const count = (number, what) => `${number} ${what}${number === 1 ? "" : "s"}`;
    say(`${count(fitting.size, "row")} in ${count(tables.length, "table")}`);
  }

  function show() {
    for (const group of all("[data-filter]")) {
      for (const button of all("button", group)) {
        const pressed = button.dataset.value === state[group.dataset.filter];
        button.setAttribute("aria-pressed", String(pressed));
      }
    }
    const card = one('.card[aria-pressed="true"]');
    if (card) card.parentElement.scrollLeft = card.offsetLeft - 14;
    for (const option of all("#protocol option[data-dataset]")) {
      option.hidden = option.disabled = state.dataset !== "" && option.dataset.dataset !== state.dataset;
      if (option.disabled && option.value === state.protocol) state.protocol = "";
    }
    one("#protocol").value = state.protocol;
    if (one("#search").value !== state.search) one("#search").value = state.search;
    one("#ranked").checked = Boolean(state.ranked);
    // Printed numbers have neither a protocol of ours nor a rank.
    one("#protocol").disabled = one("#ranked").disabled = state.kind === "published";
    filter();
    const kept = Object.keys(EMPTY).filter((key) => state[key] !== EMPTY[key]);
    const hash = new URLSearchParams(kept.map((key) => [key, state[key] || "all"])).toString();
    history.replaceState(null, "", hash ? `#${hash}` : location.pathname + location.search);
  }

  // A link to the page may carry filters: #dataset=shapes&shots=1
  function read() {
    Object.assign(state, EMPTY);
    for (const [key, value] of new URLSearchParams(location.hash.slice(1))) {
      if (key in EMPTY) state[key] = value === "all" ? "" : value;
    }
  }

  // --- a row's details -------------------------------------------------------------------------

  const opened = (row) => document.getElementById(`${row.dataset.row}-detail`);

  function make(name, properties = {}, ...inside) {
    const { style, ...rest } = properties;
    const element = Object.assign(document.createElement(name), rest);
    for (const [key, value] of Object.entries(style || {})) element.style.setProperty(key, value);
    element.append(...inside);
    return element;
  }

  function classes(fold, reference) {
    const of = new Map(reference ? reference.classes.map(([name, , iou]) => [name, iou]) : []);
    const lines = fold.classes.map(([name, episodes, iou]) => {
      const track = make("span", { className: "track" }, make("span", { style: { "--v": iou } }));
      if (of.has(name)) track.append(make("i", { style: { "--ref": of.get(name) } }));
      const more = of.has(name) ? `, first row ${of.get(name).toFixed(1)}` : "";
      track.title = `${name}: ${iou.toFixed(1)} over ${episodes} episodes${more}`;
      return make(
        "tr", {},
        make("th", { scope: "row" }, name), make("td", {}, track), make("td", {}, iou.toFixed(1)),
      );
    });
    const caption = make("caption", {}, `Fold ${fold.fold}: ${fold.miou.toFixed(1)}`);
    return make("table", {}, caption, make("tbody", {}, ...lines));
  }

  const fact = (name, ...inside) =>
    make("div", {}, make("dt", {}, name), make("dd", {}, ...inside));

  function files(folds) {
    const records = folds.map((fold) => make("a", { href: fold.record }, `fold ${fold.fold}`));
    const pictures = folds.filter((fold) => fold.panels.length).map((fold) => {
      const links = fold.panels.map(([name, address]) => make("a", { href: address }, name));
      return fact(`Panels ${fold.fold}`, ...links);
    });
    return [fact("Records", ...records), ...pictures];
  }

  function panel(id) {
    const row = details[id];
    const leader = row.leader && row.leader !== id ? details[row.leader] : null;
    const reference = (fold) => leader && leader.folds.find((other) => other.fold === fold.fold);
    const key = leader
      ? `IoU in percent by class. The line marks ${leader.label}, the table’s first row.`
      : "IoU in percent by class.";
    const scores = make(
      "div", {},
      make("h4", {}, "Classes"),
      make("div", { className: "folds" }, ...row.folds.map((fold) => classes(fold, reference(fold)))),
      make("p", { className: "key" }, key),
    );
    const facts = row.facts.map(([name, text]) => fact(name, text));
    const about = make(
      "div", {},
      make("h4", {}, "How it was measured"),
      make("dl", { className: "facts" }, ...facts, ...files(row.folds)),
    );
    return make("div", { className: "panel" }, scores, about);
  }

  function toggle(button) {
    const row = button.closest("tr");
    const there = opened(row);
    if (there) {
      there.remove();
    } else {
      const cell = make("td", { colSpan: row.cells.length }, panel(row.dataset.row));
      row.after(make("tr", { className: "detail", id: `${row.dataset.row}-detail` }, cell));
    }
    button.setAttribute("aria-expanded", String(!there));
  }

  function openable(row) {
    const name = one(".name", row);
    const button = make("button", { type: "button", className: "more name" }, name.textContent);
    button.setAttribute("aria-label", `${details[row.dataset.row].label}: details`);
    button.setAttribute("aria-expanded", "false");
    button.setAttribute("aria-controls", `${row.dataset.row}-detail`);
    name.replaceWith(button);
    button.addEventListener("click", () => toggle(button));
  }

  // --- a row and its points in the charts ------------------------------------------------------

  const points = new Map();
  for (const mark of all("svg [data-row]")) {
    points.set(mark.dataset.row, [...(points.get(mark.dataset.row) || []), mark]);
  }
  const marks = (row) => points.get(row.dataset.row) || [];

  function point(event) {
    const target = event.target.closest?.("[data-row]");
    all(".hot").forEach((element) => element.classList.remove("hot"));
    if (target && event.type !== "mouseleave") {
      const article = target.closest("article");
      all(`[data-row="${target.dataset.row}"]`, article).forEach((e) => e.classList.add("hot"));
    }
  }

  // --- start -----------------------------------------------------------------------------------

  document.documentElement.classList.add("js");
  all("tbody tr[data-row]").forEach(openable);
  all("thead th .sort").forEach((button) => {
    button.addEventListener("click", () => sort(button.closest("th")));
  });
  for (const group of all("[data-filter]")) {
    group.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (!button) return;
      state[group.dataset.filter] = button.dataset.value;
      show();
    });
  }
  one("#protocol").addEventListener("change", (event) => { state.protocol = event.target.value; show(); });
  one("#search").addEventListener("input", (event) => { state.search = event.target.value; show(); });
  one("#ranked").addEventListener("change", (event) => { state.ranked = event.target.checked ? "yes" : ""; show(); });
  one("#clear").addEventListener("click", () => { Object.assign(state, EMPTY); show(); one("#search").focus(); });
  window.addEventListener("hashchange", () => { read(); show(); });
  for (const event of ["mouseover", "focusin"]) document.addEventListener(event, point);
  read();
  show();
})();
