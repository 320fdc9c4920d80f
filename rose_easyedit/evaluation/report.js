const search = document.getElementById("search");
const form = document.getElementById("form");
const verdict = document.getElementById("verdict");
const rows = [...document.querySelectorAll("#answers tr")].map(
  (row) => ({ row, text: row.textContent.toLowerCase(), verdicts: row.dataset.verdicts.split("|") }));
function show() {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const { row, text, verdicts } of rows) {
    const fits = words.every((word) => text.includes(word))
      && (!form.value || row.dataset.form === form.value)
      && (!verdict.value || verdicts.includes(verdict.value));
    row.hidden = !fits;
    shown += fits;
  }
  document.getElementById("count").textContent = `${shown} of ${rows.length}`;
}
for (const tool of [search, form, verdict]) tool.addEventListener("input", show);
show();
