"use strict";
const found = (id) => document.getElementById(id);
const make = (name, text = "", kind = "") => {
  const element = document.createElement(name);
  element.textContent = text;
  element.className = kind;
  return element;
};
const wordsOf = (input) => input.value.toLowerCase().split(/\s+/).filter(Boolean);

// pointing at a job, or at a cell of several, shows them everywhere; else those that are left
// of a search and of the brushes
let passes = () => true;
function light(numbers, kinds) {
  for (const lit of document.querySelectorAll(".lit")) lit.classList.remove("lit");
  for (const number of numbers) {
    for (const kind of kinds) {
      for (const one of document.querySelectorAll(kind(number))) one.classList.add("lit");
    }
  }
}
const rowOf = (number) => `tr[data-job="${number}"]`;
const linesOf = (number) => `.tracejob${number}`;
function tell(numbers) {
  const kept = [...body.rows].filter((row) => !row.hidden).map((row) => row.dataset.job);
  const some = kept.length < body.rows.length;
  if (numbers.length) light(numbers, [rowOf, linesOf]);
  else light(some ? kept : [], [linesOf]);
  document.body.classList.toggle("told", some || numbers.length > 0);
}
for (const kind of ["pointerover", "focusin", "pointerdown"]) {
  document.addEventListener(kind, (event) => {
    // the pictures tell by themselves what is pointed at in them
    if (event.target.closest?.("[data-plot]")) return;
    const row = event.target.closest?.("[data-job]");
    tell(row ? [row.dataset.job] : []);
  });
}

// the table of jobs
const body = found("jobs-body");
const titles = [...document.querySelectorAll(".sortable th")];
const valueOf = (row, column) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
function compare(one, other) {
  if (one === "" || other === "") return (one === "") - (other === "");
  const numbers = [Number(one), Number(other)];
  return numbers.some(Number.isNaN) ? one.localeCompare(other) : numbers[0] - numbers[1];
}
titles.forEach((title, column) => title.addEventListener("click", () => {
  const way = title.ariaSort === "ascending" ? -1 : 1;
  for (const other of titles) other.ariaSort = null;
  title.ariaSort = way === 1 ? "ascending" : "descending";
  const rows = [...body.rows].sort((one, other) => {
    const values = [valueOf(one, column), valueOf(other, column)];
    // what has no value stays last, whichever way the others are
    return (values.includes("") ? 1 : way) * compare(...values);
  });
  body.append(...rows);
}));
function showJobs() {
  const words = wordsOf(found("search-jobs"));
  let shown = 0;
  for (const row of body.rows) {
    const text = row.textContent.toLowerCase();
    row.hidden = !passes(row.dataset.job) || !words.every((word) => text.includes(word));
    shown += !row.hidden;
  }
  found("count-jobs").textContent = `${shown} of ${body.rows.length}`;
  tell([]);
}
found("every-metric")?.addEventListener("input", (event) => {
  document.querySelector(".sortable").classList.toggle("every", event.target.checked);
});
found("search-jobs").addEventListener("input", showJobs);
showJobs();

// the answers, drawn when they are asked for, and no more than a reader can read
const PIECE = 100;
const data = JSON.parse(found("data").textContent);
const plain = (pieces) => (typeof pieces === "string" ? pieces : pieces.join(""));
function cell(pieces) {
  const made = make("td");
  for (const [place, piece] of (typeof pieces === "string" ? [pieces] : pieces).entries()) {
    made.append(place % 2 ? make("mark", piece) : piece);
  }
  return made;
}
function drawAnswer(job, [number, after, verdicts]) {
  const [subject, relation, form, query, target, before] = data.queries[number];
  const row = make("tr");
  const first = make("td", form);
  first.prepend(make("span", `job ${job[0]}`, "soft"), make("br"));
  const second = make("td", subject);
  second.append(make("br"), make("span", relation, "soft"));
  const last = make("td");
  for (const verdict of verdicts) {
    const [name, tone] = data.verdicts[verdict];
    last.append(make("span", name, `verdict ${tone}`));
  }
  row.append(first, second, make("td", query), make("td", target), cell(before), cell(after), last);
  return row;
}
let limit = PIECE;
function showAnswers() {
  const words = wordsOf(found("search"));
  const [form, verdict] = [found("form").value, found("verdict").value];
  const jobs = data.jobs.filter(([number]) => ["", String(number)].includes(found("job").value));
  const rows = [];
  let [shown, all] = [0, 0];
  for (const job of jobs) {
    for (const answer of data.runs[job[2]]) {
      all += 1;
      const query = data.queries[answer[0]];
      if (form && query[2] !== form) continue;
      if (verdict && !answer[2].some((one) => data.verdicts[one][0] === verdict)) continue;
      if (words.length) {
        const text = [...query, answer[1]].map(plain).join(" ").toLowerCase();
        if (!words.every((word) => text.includes(word))) continue;
      }
      shown += 1;
      if (shown <= limit) rows.push(drawAnswer(job, answer));
    }
  }
  found("answers-body").replaceChildren(...rows);
  found("count").textContent = `${shown} of ${all}`;
  found("more").hidden = shown <= limit;
}
function option(value, text) {
  const made = make("option", text);
  made.value = value;
  return made;
}
if (data.jobs.length) {
  for (const [number, label] of data.jobs) found("job").append(option(number, label));
  found("job").append(option("", "every job"));
  const names = (id, values) => found(id).append(...[...new Set(values)].map((one) => option(one, one)));
  names("form", data.queries.map((query) => query[2]));
  names("verdict", data.verdicts.map(([name]) => name));
  for (const id of ["job", "search", "form", "verdict"]) {
    found(id).addEventListener("input", () => { limit = PIECE; showAnswers(); });
  }
  found("more").addEventListener("click", () => { limit += PIECE; showAnswers(); });
  found("answers-of").addEventListener("toggle", showAnswers, { once: true });
}
