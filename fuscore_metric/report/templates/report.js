// The page's behaviour: theme, copying, the table of scenes, the panel of one scene, large pictures.
// Names come from folders and are never put together as HTML: only textContent.
"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const data = JSON.parse(byId("data").textContent);
  const methodCount = data.methods.length;
  const shown = (thousandths) => (thousandths === null ? "–" : (thousandths / 1000).toFixed(3));
  const make = (name, attributes = {}, ...children) => {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...children);
    return element;
  };

  // Theme: the system's until the button is pressed.
  const root = document.documentElement;
  const themeButton = byId("theme");
  const systemDark = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme || (systemDark.matches ? "dark" : "light")) === "dark";
  const nameTheme = () => {
    themeButton.textContent = isDark() ? "Light theme" : "Dark theme";
    themeButton.setAttribute("aria-pressed", String(isDark()));
  };
  themeButton.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    root.style.colorScheme = root.dataset.theme;
    nameTheme();
  });
  systemDark.addEventListener("change", nameTheme);
  nameTheme();

  // The leaderboard for the clipboard.
  const copy = async (text) => {
    try {
      await navigator.clipboard.writeText(text);
    } catch { // not given to a page without https
      const area = make("textarea", { readonly: "" });
      area.value = text;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
  };
  document.querySelectorAll("[data-copy]").forEach((button) => button.addEventListener("click", async () => {
    await copy(data.copies[button.dataset.copy]);
    byId("copied").textContent = `Copied as ${button.dataset.copy}.`;
  }));

  // Table of scenes. Only the rows in view are in the document, so that thousands cost nothing.
  const box = byId("grid");
  const table = box.querySelector("table");
  const head = table.tHead.rows[0];
  const body = table.tBodies[0];
  const found = byId("found");
  const ROW = 34, MARGIN = 10; // height of a row as in the style; rows drawn beyond the view
  const own = (method) => (data.highlight.includes(method) ? " own" : "");
  const scoreAt = (scene, method) => data.score[scene * methodCount + method];
  const columns = [
    { name: "Scene", width: 170, value: (scene) => data.scenes[scene], ascending: true },
    { name: "Mean", width: 84, value: (scene) => data.mean[scene], title: "mean over all methods" },
    { name: "Spread", width: 88, value: (scene) => data.spread[scene], title: "best minus worst score" },
    { name: "Best method", width: 140, ascending: true, text: true,
      value: (scene) => (data.best[scene] < 0 ? null : data.methods[data.best[scene]]) },
    ...data.methods.map((name, method) => ({
      name, method, width: Math.min(170, Math.max(86, 46 + 8 * name.length)), title: name, value: (scene) => scoreAt(scene, method) })),
  ];
  const collator = new Intl.Collator(undefined, { numeric: true });
  let sorted = { column: columns[0], ascending: true };
  let visible = columns;
  let order = [];
  let drawn = [-1, -1];
  let whole = false; // all rows are in the document, for printing

  const cell = (scene, column) => {
    if (column.method === undefined) {
      const value = column.value(scene);
      if (!column.text) return make("td", {}, shown(value));
      return make("td", { class: "text", title: value ?? "" }, value ?? "–");
    }
    const score = scoreAt(scene, column.method);
    if (score !== null) {
      const td = make("td", { class: data.best[scene] === column.method ? "score top" : "score" }, shown(score));
      td.style.setProperty("--a", ((score - 1000) / 4000).toFixed(2));
      return td;
    }
    const error = data.errors[scene * methodCount + column.method];
    return error === undefined ? make("td", {}, "–") : make("td", { class: "failed", title: error }, "failed");
  };
  const row = (place) => {
    const scene = order[place];
    const name = data.scenes[scene];
    const button = make("button", { type: "button", title: name, "data-scene": scene }, name);
    return make("tr", { "aria-rowindex": place + 2 }, make("th", { scope: "row" }, button),
      ...visible.slice(1).map((column) => cell(scene, column)));
  };
  const space = (rows) => {
    const td = make("td", { colspan: visible.length });
    td.style.height = `${rows * ROW}px`;
    return make("tr", { class: "space", "aria-hidden": "true" }, td);
  };
  const draw = (again) => {
    const first = whole ? 0 : Math.max(0, Math.floor(box.scrollTop / ROW) - MARGIN);
    const last = whole ? order.length : Math.min(order.length, first + Math.ceil(box.clientHeight / ROW) + 2 * MARGIN);
    if (!again && drawn[0] === first && drawn[1] === last) return;
    drawn = [first, last];
    const focused = body.contains(document.activeElement) ? document.activeElement.dataset.scene : undefined;
    const rows = [];
    if (first > 0) rows.push(space(first));
    for (let place = first; place < last; place++) rows.push(row(place));
    if (last < order.length) rows.push(space(order.length - last));
    body.replaceChildren(...rows);
    if (focused !== undefined) body.querySelector(`[data-scene="${focused}"]`)?.focus({ preventScroll: true });
  };
  const compare = (a, b) => {
    const [x, y] = [sorted.column.value(a), sorted.column.value(b)];
    if (x === null || y === null) return (x === null) - (y === null); // what is missing comes last
    const difference = typeof x === "string" ? collator.compare(x, y) : x - y;
    return sorted.ascending ? difference : -difference;
  };
  const drawHead = () => {
    head.replaceChildren(...visible.map((column) => {
      const label = make("span");
      for (const part of column.name.split(/(?<=[_\-./])/)) label.append(part, make("wbr"));
      const button = make("button", { type: "button", title: column.title ?? column.name }, label);
      button.addEventListener("click", () => {
        const same = sorted.column === column;
        sorted = { column, ascending: same ? !sorted.ascending : Boolean(column.ascending) };
        update();
      });
      const th = make("th", { scope: "col", class: `${column.text ? "text" : ""}${own(column.method)}` }, button);
      if (column === sorted.column) th.setAttribute("aria-sort", sorted.ascending ? "ascending" : "descending");
      return th;
    }));
    const width = (column, place) => (place === 0 && innerWidth < 560 ? 120 : column.width);
    const widths = visible.map(width);
    table.querySelector("colgroup").replaceChildren(...widths.map((size) => {
      const col = make("col");
      col.style.width = `${size}px`;
      return col;
    }));
    table.style.width = `${widths.reduce((total, size) => total + size, 0)}px`;
    table.style.minWidth = "100%";
    table.setAttribute("aria-colcount", visible.length);
  };
  const update = () => {
    const focusedHead = [...head.children].indexOf(document.activeElement?.closest("th"));
    const wanted = byId("filter-scenes").value.trim().toLowerCase();
    const parts = byId("filter-methods").value.toLowerCase().split(",").map((part) => part.trim()).filter(Boolean);
    order = data.scenes.map((_, scene) => scene)
      .filter((scene) => data.scenes[scene].toLowerCase().includes(wanted)).sort(compare);
    visible = columns.filter((column) => column.method === undefined || !parts.length ||
      parts.some((part) => column.name.toLowerCase().includes(part)));
    table.setAttribute("aria-rowcount", order.length + 1);
    drawHead();
    if (focusedHead >= 0) head.children[focusedHead]?.querySelector("button").focus({ preventScroll: true });
    box.scrollTop = 0;
    draw(true);
    found.textContent = `${order.length} of ${data.scenes.length} scenes, ` +
      `${visible.length - 4} of ${methodCount} methods`;
  };
  let waiting = false;
  box.addEventListener("scroll", () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; draw(false); });
  }, { passive: true });
  for (const id of ["filter-scenes", "filter-methods"]) byId(id).addEventListener("input", update);
  addEventListener("resize", () => { drawHead(); draw(false); });
  const print = (on) => () => { whole = on && order.length <= 3000; draw(true); };
  addEventListener("beforeprint", print(true));
  addEventListener("afterprint", print(false));
  body.addEventListener("click", (event) => {
    const line = event.target.closest("tr:not(.space)");
    if (line) open(Number(line.querySelector("button").dataset.scene));
  });
  body.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step || !event.target.dataset.scene) return;
    event.preventDefault();
    const place = order.indexOf(Number(event.target.dataset.scene)) + step;
    if (place < 0 || place >= order.length) return;
    const top = place * ROW, under = box.clientHeight - head.offsetHeight - ROW;
    if (top < box.scrollTop) box.scrollTop = top;
    if (top > box.scrollTop + under) box.scrollTop = top - under;
    draw(false);
    body.querySelector(`[data-scene="${order[place]}"]`).focus({ preventScroll: true });
  });

  // Panel of one scene.
  const dialog = byId("detail");
  let current = 0;
  const stack = (at) => {
    const shares = data.probabilities.slice(at * data.levels.length, (at + 1) * data.levels.length);
    if (shares.includes(null)) return "–";
    const words = data.levels.map((level, n) => `${level} ${(shares[n] / 10).toFixed(1)} %`).join(", ");
    const bar = make("div", { class: "stack", role: "img", "aria-label": words, title: words });
    shares.forEach((share, n) => {
      const part = make("i");
      part.style.setProperty("--level", `var(--level-${n})`);
      part.style.flex = `${share} 0 0`;
      bar.append(part);
    });
    return bar;
  };
  const methodRow = (scene, method) => {
    const at = scene * methodCount + method;
    const name = make("th", { scope: "row" }, make("bdi", {}, data.methods[method]));
    if (data.score[at] === null) {
      const error = data.errors[at] ?? "not in the table";
      return make("tr", { class: own(method) }, name, make("td", { class: "failed", colspan: 3 + data.aspects.length }, error));
    }
    return make("tr", { class: own(method) }, name, make("td", {}, make("b", {}, shown(data.score[at]))),
      make("td", {}, shown(data.std[at])), make("td", { class: "levels" }, stack(at)),
      ...data.aspectScores.map((scores) => make("td", {}, shown(scores[at]))));
  };
  const pictures = (scene) => {
    const exhibit = document.querySelector(`.exhibit[data-scene="${scene}"] .shots`);
    return exhibit ? exhibit.cloneNode(true)
      : make("p", {}, "No pictures of this scene are in this file; only chosen scenes have some.");
  };
  const fill = (scene) => {
    current = scene;
    byId("detail-title").textContent = data.scenes[scene];
    const levels = data.levels.map((level, n) => {
      const colour = make("i");
      colour.style.setProperty("--level", `var(--level-${n})`);
      return make("span", {}, colour, level);
    });
    const methods = data.methods.map((_, method) => method).sort((a, b) =>
      (scoreAt(scene, b) ?? -1) - (scoreAt(scene, a) ?? -1));
    const headings = ["Method", "Score", "Std", "Levels"].map((text) => make("th", { scope: "col" }, text));
    headings[3].className = "levels";
    const aspects = data.aspects.map((text) => make("th", { scope: "col", class: "aspect" }, text));
    const lines = make("table", { class: "detail" }, make("thead", {}, make("tr", {}, ...headings, ...aspects)),
      make("tbody", {}, ...methods.map((method) => methodRow(scene, method))));
    byId("detail-body").replaceChildren(
      make("p", {}, `Mean ${shown(data.mean[scene])}, best minus worst ${shown(data.spread[scene])}.`),
      make("div", { class: "key", "aria-hidden": "true" }, ...levels),
      make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Scores of this scene" }, lines),
      pictures(scene));
    dialog.scrollTop = 0;
    const place = order.indexOf(scene);
    byId("previous").disabled = place <= 0;
    byId("next").disabled = place < 0 || place >= order.length - 1;
  };
  const open = (scene) => { fill(scene); if (!dialog.open) dialog.showModal(); };
  const step = (by) => {
    const place = order.indexOf(current) + by;
    if (order.includes(current) && place >= 0 && place < order.length) fill(order[place]);
  };
  byId("previous").addEventListener("click", () => step(-1));
  byId("next").addEventListener("click", () => step(1));
  byId("close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  dialog.addEventListener("keydown", (event) => {
    if (event.target.closest(".scroll")) return;
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
  });
  document.querySelectorAll("[data-open]").forEach((button) =>
    button.addEventListener("click", () => open(Number(button.dataset.open))));

  // A picture as large as the window; a click or Escape closes it.
  const large = byId("large");
  document.addEventListener("click", (event) => {
    const small = event.target.closest(".enlarge")?.querySelector("img");
    if (!small) return;
    const picture = small.cloneNode();
    picture.style.setProperty("--shape", small.getAttribute("width") / small.getAttribute("height"));
    byId("large-title").textContent = small.alt;
    byId("large-body").replaceChildren(picture);
    large.showModal();
  });
  large.addEventListener("click", () => large.close());

  update();
})();
