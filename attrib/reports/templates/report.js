"use strict";
(() => {
  const table = document.querySelector("table.r-items");
  if (!table) return;
  const body = table.tBodies[0];
  const rows = Array.from(body.rows);
  const told = document.getElementById("told");
  const words = document.getElementById("words");
  const pick = document.getElementById("pick");
  const state = document.getElementById("state");
  document.querySelector(".r-tools").hidden = false;

  const texts = new Map(rows.map((row) => [row, row.dataset.find.toLowerCase()]));
  const most = 500; // rows in the table at once: twenty thousand would take seconds to lay out
  let order = rows;
  const show = () => {
    const wanted = words.value.trim().toLowerCase().split(/\s+/).filter(Boolean);
    const hits = order.filter((row) => wanted.every((word) => texts.get(row).includes(word)) &&
      (!pick.value || row.dataset.prediction === pick.value) &&
      (!state.value || row.dataset.state === state.value));
    body.replaceChildren(...hits.slice(0, most));
    const cut = hits.length > most ? `, the first ${most} are shown` : "";
    told.textContent = `${hits.length} of ${rows.length} on this page${cut}`;
  };
  for (const control of [words, pick, state]) control.addEventListener("input", show);

  const key = (row, column) => {
    const cell = row.cells[column];
    const number = cell.dataset.value;
    return number === undefined ? cell.textContent.trim().toLowerCase() : number === "" ? NaN : Number(number);
  };
  const compare = (a, b) => {
    if (typeof a === "string") return a.localeCompare(b);
    return Number.isNaN(a) ? (Number.isNaN(b) ? 0 : 1) : Number.isNaN(b) ? -1 : a - b;
  };
  table.querySelectorAll("th button").forEach((button) => button.addEventListener("click", () => {
    const head = button.closest("th");
    const falling = head.getAttribute("aria-sort") === "ascending";
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", falling ? "descending" : "ascending");
    const column = head.cellIndex;
    const sorted = rows.map((row) => [key(row, column), row]);
    sorted.sort((a, b) => {
      const missing = Number.isNaN(a[0]) || Number.isNaN(b[0]);
      return falling && !missing ? compare(b[0], a[0]) : compare(a[0], b[0]);
    });
    order = sorted.map((pair) => pair[1]);
    show();
  }));
  show();
})();
