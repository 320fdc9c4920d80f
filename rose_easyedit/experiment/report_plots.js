
// the pictures: Plotly is unpacked and draws them, in the colours of the reader's scheme
const plots = JSON.parse(found("plots").textContent);
const places = [...document.querySelectorAll("[data-plot]")];
const paper = matchMedia("print");
const coarse = matchMedia("(pointer: coarse)");
const config = {
  displaylogo: false, responsive: true,
  // a picture that it makes is a file; the rest of its buttons would need the network
  modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]],
  toImageButtonOptions: { format: "svg" },
};
async function unpack() {
  const bytes = Uint8Array.from(atob(found("plotly").textContent), (one) => one.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  document.head.append(make("script", await new Response(stream).text()));
}
function coloured(figure) {
  const style = getComputedStyle(document.documentElement);
  return JSON.parse(JSON.stringify(figure), (key, value) => {
    const name = typeof value === "string" && /^var\((--[a-z0-9]+)\)$/.exec(value);
    return name ? style.getPropertyValue(name[1]).trim() : value;
  });
}
function jobsOf(point) {
  if (point.customdata) return String(point.customdata).split(" ");
  return /^job(\d+)$/.exec(point.data.uid ?? "")?.slice(1) ?? [];
}
async function draw(place) {
  if (!place.checkVisibility()) return; // it is drawn once it is chosen
  const first = !place.on;
  const { data, layout } = coloured(plots[place.dataset.plot]);
  if (place.layout?.selections) layout.selections = place.layout.selections;
  // a finger that drags scrolls the page; on paper nobody can scroll to the right
  if (coarse.matches) layout.dragmode = false;
  if (paper.matches) layout.width = place.parentElement.clientWidth - 16;
  // on a narrow screen the buttons would lie over the legend
  const displayModeBar = place.clientWidth < 480 ? false : "hover";
  await Plotly.react(place, data, layout, { ...config, displayModeBar });
  if (!first) return;
  place.on("plotly_hover", (event) => tell(event.points.flatMap(jobsOf)));
  place.on("plotly_unhover", () => tell([]));
  if (layout.dragmode === "select") {
    place.on("plotly_relayout", () => brush(place));
    found("all-jobs").addEventListener("click", () => Plotly.relayout(place, { selections: [] }));
  }
}
// a job passes if, on each axis with boxes over it, its line goes through one of them
function brush(place) {
  const boxes = (place.layout.selections ?? []).map(({ x0, x1, y0, y1 }) => (
    { x: [x0, x1].sort((a, b) => a - b), y: [y0, y1].sort((a, b) => a - b) }
  ));
  const within = (value, [low, high]) => value !== null && low <= value && value <= high;
  const lines = new Map(place.data.flatMap((one) => jobsOf({ data: one }).map((job) => [job, one.y])));
  passes = (job) => {
    const line = lines.get(job);
    if (!boxes.length) return true;
    return line !== undefined && line.every((value, axis) => {
      const over = boxes.filter((box) => within(axis, box.x));
      return !over.length || over.some((box) => within(value, box.y));
    });
  };
  found("all-jobs").hidden = !boxes.length;
  showJobs();
}
const drawAll = () => Promise.all(places.map(draw));
const ready = !places.length ? Promise.resolve() : unpack().then(drawAll).then(() => {
  for (const change of [matchMedia("(prefers-color-scheme: dark)"), paper]) {
    change.addEventListener("change", drawAll);
  }
  found("metric")?.addEventListener("input", (event) => {
    for (const chart of document.querySelectorAll("[data-metric]")) {
      chart.hidden = chart.dataset.metric !== event.target.value;
    }
    return drawAll();
  });
}).catch((error) => {
  found("undrawn").hidden = false;
  throw error;
});
