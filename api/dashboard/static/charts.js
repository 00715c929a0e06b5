// Draws every [data-chart] with uPlot: {"x": [...], "lines": {"<label>": [...], ...}}. New ones too, when htmx brings them.
"use strict";
(() => {
  const styles = () => getComputedStyle(document.documentElement);
  const color = (name) => styles().getPropertyValue(name).trim();
  const WHOLE = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 100000];
  const TONES = ["--link", "--good", "--bad", "--wait"];

  function draw(figure) {
    const { x, lines } = JSON.parse(figure.dataset.chart);
    const axis = { stroke: color("--dim"), grid: { stroke: color("--line") }, ticks: { stroke: color("--line") } };
    figure.querySelector(".uplot")?.remove();
    new uPlot({
      width: figure.clientWidth - 16,
      height: 220,
      scales: { x: { time: false } },
      axes: [{ ...axis, incrs: WHOLE }, axis],
      series: [{ label: figure.dataset.over }, ...Object.keys(lines).map((label, n) => ({
        label, stroke: color(TONES[n % TONES.length]), width: 2, points: { show: x.length < 30 }, spanGaps: true,
        dash: n < TONES.length ? [] : [6, 4],
      }))],
    }, [x, ...Object.values(lines)], figure);
  }

  const drawAll = () => document.querySelectorAll("[data-chart]").forEach(draw);
  document.addEventListener("DOMContentLoaded", drawAll);
  document.addEventListener("htmx:after:swap", drawAll);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  addEventListener("resize", () => { clearTimeout(draw.later); draw.later = setTimeout(drawAll, 200); });
})();
