"use strict";

// Tables: a button in each head sorts; what has no value stays last.
const collator = new Intl.Collator("en", { numeric: true });

function compared(first, second, isNumber) {
  if (first === undefined || second === undefined) {
    return (first === undefined) - (second === undefined);
  }
  return isNumber ? Number(first) - Number(second) : collator.compare(first, second);
}

function sortTable(head) {
  const table = head.closest("table");
  const isNumber = head.classList.contains("number");
  // numbers: the largest first, as most of them are scores
  const first = isNumber ? "descending" : "ascending";
  const other = isNumber ? "ascending" : "descending";
  const order = head.getAttribute("aria-sort") === first ? other : first;
  for (const each of table.tHead.rows[0].cells) each.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", order);
  const body = table.tBodies[0];
  const value = (row) => row.cells[head.cellIndex].dataset.value;
  const sign = order === "ascending" ? 1 : -1;
  const rows = Array.from(body.rows);
  rows.sort((a, b) => {
    const [left, right] = [value(a), value(b)];
    const isMissing = left === undefined || right === undefined;
    return compared(left, right, isNumber) * (isMissing ? 1 : sign);
  });
  body.append(...rows);
}

for (const head of document.querySelectorAll("th")) {
  head.querySelector("button").addEventListener("click", () => sortTable(head));
}

// Plots: drawn when they come near, in the colours of the page.
const dark = window.matchMedia("(prefers-color-scheme: dark)");

function themed(layout) {
  const style = getComputedStyle(document.documentElement);
  const [ink, grid] = ["--plot-ink", "--plot-grid"].map((name) => style.getPropertyValue(name).trim());
  const axis = { gridcolor: grid, linecolor: grid, zerolinecolor: grid, automargin: true };
  const result = {
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: ink },
    margin: { l: 56, r: 12, t: 12, b: 44 },
    legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 },
    hovermode: "closest",
    dragmode: false,
    ...layout,
  };
  for (const name of ["xaxis", "yaxis"]) result[name] = { ...axis, ...(layout[name] || {}) };
  return result;
}

function draw(plot) {
  const canvas = plot.querySelector(".canvas");
  const figure = JSON.parse(plot.querySelector("script").textContent);
  const options = { responsive: true, displaylogo: false, displayModeBar: false, showTips: false };
  plot.dataset.drawn = "yes";
  return Plotly.react(canvas, figure.data, themed(figure.layout || {}), options);
}

function drawPlots() {
  const plots = Array.from(document.querySelectorAll(".plot"));
  if (!plots.length) return;
  const near = new IntersectionObserver(
    (seen) => {
      for (const each of seen) {
        if (each.isIntersecting && !each.target.dataset.drawn) draw(each.target);
      }
    },
    { rootMargin: "800px" },
  );
  for (const plot of plots) near.observe(plot);
  dark.addEventListener("change", () => plots.filter((plot) => plot.dataset.drawn).forEach(draw));
  window.addEventListener("beforeprint", () => plots.forEach(draw));
  window.addEventListener("afterprint", () => plots.forEach(draw));
}

// Volumes: one canvas; without WebGL the pictures stay.
function channels(colours, place) {
  return [0, ...colours.map((colour) => parseInt(colour.slice(1 + 2 * place, 3 + 2 * place), 16))];
}

function labelColours(labels) {
  const colours = labels.map((label) => label.colour);
  return {
    R: channels(colours, 0),
    G: channels(colours, 1),
    B: channels(colours, 2),
    A: [0, ...colours.map(() => 255)],
    I: [0, ...colours.map((_, number) => number + 1)],
  };
}

class Viewer {
  constructor(root) {
    this.root = root;
    this.volumes = JSON.parse(root.querySelector("script").textContent);
    this.canvas = root.querySelector("canvas");
    this.screen = root.querySelector(".screen");
    this.select = root.querySelector(".case");
    this.map = root.querySelector(".map");
    this.opacity = root.querySelector(".opacity");
    this.status = root.querySelector(".status");
    this.turn = 0;
  }

  async start() {
    if (!this.canvas.getContext("webgl2", { alpha: true, antialias: true })) {
      this.status.textContent = "This browser has no WebGL 2: pictures instead of the volume viewer.";
      return;
    }
    this.viewer = new niivue.Niivue({
      dragAndDropEnabled: false, isResizeCanvas: true, isForceMouseClickToVoxelCenters: true, logLevel: "error",
      backColor: [0, 0, 0, 1], crosshairColor: [1, 1, 1, 0.6], crosshairWidth: 0.2, crosshairWidthUnit: "percent",
      viewModeHotKey: "", clipPlaneHotKey: "", cycleClipPlaneHotKey: "", multiplanarShowRender: 0,
      multiplanarPadPixels: 6, fontMinPx: 14, fontSizeScaling: 0, loadingText: "", isColorbar: false, showLegend: false,
    });
    this.root.querySelector(".controls").hidden = false;
    this.screen.hidden = false;
    this.root.querySelector(".fallback").style.display = "none";
    await this.viewer.attachToCanvas(this.canvas);
    this.viewer.onLocationChange = (place) => this.tell(place);
    this.select.addEventListener("change", () => this.show());
    this.map.addEventListener("change", () => this.overlay());
    this.opacity.addEventListener("input", () => this.fade());
    this.canvas.addEventListener("keydown", (event) => this.move(event));
    await this.show();
  }

  async show() {
    const turn = ++this.turn;
    const volume = this.volumes[Number(this.select.value)];
    const image = await niivue.NVImage.loadFromBase64({ base64: volume.image, name: "image.nii.gz" });
    [image.cal_min, image.cal_max] = [0, 255]; // the window is in the file
    const maps = [];
    for (const each of volume.maps) {
      const map = await niivue.NVImage.loadFromBase64({ base64: each.nifti, name: "labels.nii.gz" });
      map.setColormapLabel(labelColours(volume.labels));
      maps.push(map);
    }
    if (turn !== this.turn) return; // another case was chosen meanwhile
    while (this.viewer.volumes.length) this.viewer.removeVolumeByIndex(0);
    for (const each of [image, ...maps]) this.viewer.addVolume(each);
    const isFlat = image.dims[3] === 1;
    this.viewer.setSliceType(isFlat ? this.viewer.sliceTypeAxial : this.viewer.sliceTypeMultiplanar);
    this.viewer.scene.crosshairPos = this.viewer.mm2frac(volume.centre);
    this.map.replaceChildren(...volume.maps.map((each, number) => new Option(each.name, number)));
    this.map.append(new Option("none", -1));
    this.legend(volume);
    this.status.textContent = volume.caption;
    this.overlay();
    this.root.dataset.shown = this.select.value;
  }

  overlay() {
    this.fade();
    const shown = this.map.selectedOptions[0];
    this.root.dataset.map = shown ? shown.textContent : "";
  }

  fade() {
    const opacity = Number(this.opacity.value) / 100;
    for (let place = 1; place < this.viewer.volumes.length; place += 1) {
      this.viewer.setOpacity(place, place - 1 === Number(this.map.value) ? opacity : 0);
    }
  }

  move(event) {
    const steps = {
      ArrowLeft: [-1, 0, 0], ArrowRight: [1, 0, 0], ArrowUp: [0, 1, 0], ArrowDown: [0, -1, 0],
      PageUp: [0, 0, 1], PageDown: [0, 0, -1],
    };
    const step = steps[event.key];
    if (!step) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    this.viewer.moveCrosshairInVox(...step);
  }

  legend(volume) {
    const items = volume.labels.map((label) => {
      const item = document.createElement("li");
      const mark = document.createElement("i");
      mark.style.background = label.colour;
      item.append(mark, label.name);
      return item;
    });
    this.root.querySelector(".legend").replaceChildren(...items);
  }

  tell(place) {
    const volume = this.volumes[Number(this.select.value)];
    const labels = place.values.slice(1).map((each, number) => {
      const label = volume.labels[Math.round(each.value) - 1];
      return `${volume.maps[number].name} ${label ? label.name : "nothing"}`;
    });
    const mm = Array.from(place.mm).slice(0, 3).map((each) => each.toFixed(0)).join(", ");
    this.status.textContent = [volume.caption, ...labels, `at ${mm} mm`].filter(Boolean).join(" · ");
  }
}

drawPlots();
for (const root of document.querySelectorAll(".viewer")) {
  new Viewer(root).start().catch((error) => {
    // whatever the graphics driver does not do, the pictures show
    console.warn("volume viewer:", error);
    root.querySelector(".fallback").style.display = "";
    root.querySelector(".controls").hidden = true;
    root.querySelector(".screen").hidden = true;
  });
}
