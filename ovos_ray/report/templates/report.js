"use strict";
const one = (selector, within = document) => within.querySelector(selector);
const all = (selector, within = document) => [...within.querySelectorAll(selector)];

const scheme = one("#scheme");
scheme.addEventListener("click", () => {
  const dark = scheme.getAttribute("aria-pressed") !== "true";
  scheme.setAttribute("aria-pressed", dark);
  document.documentElement.style.colorScheme = dark ? "dark" : "light";
});
scheme.setAttribute("aria-pressed", matchMedia("(prefers-color-scheme: dark)").matches);

const words = new Intl.Collator(undefined, { numeric: true });
const table = one("#results");
const count = one("#count");
// A row and the seeds beneath it move and hide together.
const rows = all("tbody tr[data-row]", table).map(row => ({ row, detail: row.nextElementSibling }));

function filter() {
  const wanted = one("#search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const choices = all("select[data-axis]").filter(s => s.value !== "");
  const finished = one("#finished").checked;
  let shown = 0;
  for (const { row, detail } of rows) {
    const settings = JSON.parse(row.dataset.settings);
    const fits = wanted.every(word => row.dataset.text.includes(word))
      && choices.every(choice => settings[choice.dataset.axis] === choice.value)
      && (!finished || row.dataset.finished === "1");
    row.hidden = !fits;
    detail.hidden = !fits || one(".toggle", row).getAttribute("aria-expanded") !== "true";
    shown += fits;
  }
  count.textContent = `${shown} of ${rows.length} rows`;
}

function sort(header) {
  const column = header.cellIndex;
  const descending = header.getAttribute("aria-sort") !== "descending" && header.classList.contains("n")
    || header.getAttribute("aria-sort") === "ascending";
  all("th", header.parentElement).forEach(other => other.removeAttribute("aria-sort"));
  header.setAttribute("aria-sort", descending ? "descending" : "ascending");
  const key = ({ row }) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
  const numeric = header.classList.contains("n");
  rows.sort((a, b) => {
    const [x, y] = [key(a), key(b)];
    // What is missing stays at the end, whichever way the column is sorted.
    if (x === "" || y === "") return (x === "") - (y === "");
    const order = numeric ? x - y : words.compare(x, y);
    return descending ? -order : order;
  });
  one("tbody", table).append(...rows.flatMap(({ row, detail }) => [row, detail]));
}

all("th button", table).forEach(button => button.addEventListener("click", () => sort(button.parentElement)));
all(".controls input, .controls select").forEach(input => input.addEventListener("input", filter));
table.addEventListener("click", event => {
  const toggle = event.target.closest(".toggle");
  if (!toggle) return;
  const open = toggle.getAttribute("aria-expanded") !== "true";
  toggle.setAttribute("aria-expanded", open);
  toggle.closest("tr").nextElementSibling.hidden = !open;
});
addEventListener("beforeprint", () => all("details").forEach(details => { details.open = true; }));
filter();
