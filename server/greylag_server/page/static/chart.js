"use strict";
// Draws the seconds of each attempt; the same figures stand in the drawing's label.
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function draw(box) {
  if (box.firstChild !== null) return;
  const axis = (label) => ({
    label,
    stroke: colour("--soft"),
    grid: { stroke: colour("--line"), width: 1 },
    ticks: { stroke: colour("--line"), width: 1 },
    labelSize: 20,
  });
  const line = { stroke: colour("--accent"), width: 1.5, points: { show: false } };
  const voids = {
    stroke: colour("--act"),
    paths: () => null,
    points: { show: true, size: 7, fill: colour("--act") },
  };
  const options = {
    width: box.clientWidth,
    height: 220,
    cursor: { show: false },
    legend: { show: false },
    scales: { x: { time: false }, y: { range: (_, low, high) => [0, high * 1.1 || 1] } },
    axes: [{ ...axis(box.dataset.x), incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000] }, { ...axis(box.dataset.y), size: 48 }],
    series: [{}, line, voids],
  };
  new uPlot(options, JSON.parse(box.dataset.points), box);
}

function drawAll() {
  for (const box of document.querySelectorAll(".chart")) draw(box);
}

function drawAgain() {
  for (const box of document.querySelectorAll(".chart")) box.replaceChildren();
  drawAll();
}

document.addEventListener("DOMContentLoaded", drawAll);
document.addEventListener("htmx:afterSettle", drawAll);
window.addEventListener("resize", drawAgain);
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAgain);
