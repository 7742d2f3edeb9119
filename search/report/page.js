"use strict";
// Draws every figure, one after another, in the colours that the reader's system asks for.
(() => {
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const ink = (isDark) => (isDark ? "#e6e9ef" : "#1d2330");
  const grid = "rgba(128, 128, 128, 0.22)";
  const axis = {
    gridcolor: grid, linecolor: grid, zeroline: false, automargin: true,
    title: { font: { size: 12 }, standoff: 8 },
  };
  const template = {
    layout: {
      xaxis: axis,
      yaxis: axis,
      paper_bgcolor: "rgba(0, 0, 0, 0)",
      plot_bgcolor: "rgba(0, 0, 0, 0)",
      margin: { l: 50, r: 14, t: 10, b: 42 },
      hovermode: "closest",
      legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 },
      bargap: 0.25,
      modebar: { bgcolor: "rgba(0, 0, 0, 0)", color: "#8b9098", activecolor: "#3f7fc1" },
    },
  };
  const options = {
    displaylogo: false,
    responsive: true,
    displayModeBar: "hover",
    showSendToCloud: false,  // a button that uploads the figure's data; it is there by default
    plotlyServerURL: "",
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
  };
  const bare = { displayModeBar: false };
  const font = (colour) => ({ color: colour, size: 12, family: "system-ui, sans-serif" });
  // A line that must be seen on either ground names the colour "ink".
  const isInk = (trace) => trace.line && trace.line.color === "ink";

  const plots = [...document.querySelectorAll(".plot")];
  const inked = new Map();

  async function draw(place) {
    const figure = JSON.parse(document.getElementById(place.dataset.figure).textContent);
    const colour = ink(dark.matches);
    inked.set(place, figure.data.flatMap((trace, number) => (isInk(trace) ? [number] : [])));
    figure.data.filter(isInk).forEach((trace) => { trace.line.color = colour; });
    const layout = { ...figure.layout, template, font: font(colour) };
    const isSmall = place.closest(".small") !== null;
    await Plotly.newPlot(place, figure.data, layout, { ...options, ...(isSmall && bare) });
  }

  function recolour(isDark) {
    for (const place of inked.keys()) {
      Plotly.relayout(place, { "font.color": ink(isDark) });
      const traces = inked.get(place);
      if (traces.length) Plotly.restyle(place, { "line.color": ink(isDark) }, traces);
    }
  }

  async function drawAll() {
    for (const place of plots) {
      await draw(place);
      await new Promise((resolve) => setTimeout(resolve));  // the page stays usable meanwhile
    }
    document.documentElement.dataset.drawn = String(plots.length);
  }

  dark.addEventListener("change", (event) => recolour(event.matches));
  window.addEventListener("beforeprint", () => recolour(false));
  window.addEventListener("afterprint", () => recolour(dark.matches));
  drawAll();
})();
