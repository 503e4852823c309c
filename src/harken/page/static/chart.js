/* Draws the scores of a machine with uPlot: highest and mean per period, the alarm limit, alarms as bands. */
"use strict";
(async () => {
  const place = document.getElementById("chart");
  if (!place) return;
  const response = await fetch(place.dataset.scores, { headers: { accept: "application/json" } });
  if (!response.ok) return;
  const values = await response.json();
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  const limits = values.time.map(() => values.limit);
  const bands = (chart) => {
    const { ctx, bbox } = chart;
    ctx.save();
    ctx.fillStyle = colour("band");
    for (const [start, end] of values.alarms) {
      const left = Math.max(bbox.left, chart.valToPos(start, "x", true));
      const right = Math.min(bbox.left + bbox.width, chart.valToPos(end, "x", true));
      if (right > left) ctx.fillRect(left, bbox.top, Math.max(2, right - left), bbox.height);
    }
    ctx.restore();
  };
  // Times as the language writes them: hours within a day, dates beyond.
  const language = document.documentElement.lang;
  const form = values.seconds < 1000 ? { hour: "2-digit", minute: "2-digit" } : { day: "numeric", month: "short" };
  const short = new Intl.DateTimeFormat(language, form);
  const long = new Intl.DateTimeFormat(language, { dateStyle: "medium", timeStyle: "short" });
  const dates = (chart, times) => times.map((time) => short.format(time * 1000));
  const whole = values.seconds < 1000 ? undefined : [86400, 2 * 86400, 7 * 86400, 30 * 86400, 91 * 86400];
  const axis = { stroke: colour("text"), grid: { stroke: colour("line"), width: 1 }, ticks: { stroke: colour("line") } };
  // A value without neighbours has no line, and is a point; so are all where there are few.
  const alone = (chart, series) => chart.data[series].flatMap((value, place, all) =>
    value != null && (all.length < 60 || (all[place - 1] == null && all[place + 1] == null)) ? [place] : []);
  const size = () => ({ width: place.clientWidth, height: 260 });
  const options = {
    ...size(),
    scales: { x: { time: true, range: [values.from, values.until] } },
    axes: [{ ...axis, values: dates, incrs: whole }, { ...axis, size: 64 }],
    series: [
      { label: "", value: (chart, time) => (time == null ? "" : long.format(time * 1000)) },
      { label: place.dataset.highest, stroke: colour("bar"), width: 1.5, points: { show: true, size: 4, filter: alone } },
      { label: place.dataset.mean, stroke: colour("faint"), width: 1, dash: [2, 3], points: { show: false } },
      { label: place.dataset.limit, stroke: colour("alarm"), width: 1, dash: [6, 4], points: { show: false } },
    ],
    hooks: { drawClear: [bands] },
  };
  const chart = new uPlot(options, [values.time, values.maximum, values.mean, limits], place);
  addEventListener("resize", () => chart.setSize(size()));
})();
