"use strict";
// What the page does beyond showing: curves, sorting, light and dark. Everything else is plain HTML
// and reads without this. Text from the data only ever becomes a text node.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const SVG = "http://www.w3.org/2000/svg";
  const state = { x: "step", log: false, logX: false, smooth: 0, hidden: new Set() };

  const element = (name, attributes, text) => {
    const made = document.createElement(name);
    for (const key in attributes) made.setAttribute(key, attributes[key]);
    if (text !== undefined) made.textContent = text;
    return made;
  };
  const shape = (parent, name, attributes, text) => {
    const made = document.createElementNS(SVG, name);
    for (const key in attributes) made.setAttribute(key, attributes[key]);
    if (text !== undefined) made.textContent = text;
    parent.append(made);
    return made;
  };
  const colour = (idx) => `var(--s${idx % 8})`;

  // Figures, as the terminal writes them.
  const number = (value) => {
    if (Number.isNaN(value)) return "NaN";
    if (!Number.isFinite(value)) return value > 0 ? "inf" : "-inf";
    const size = Math.abs(value);
    if (Number.isInteger(value) && size < 1e12) return value.toLocaleString("en-US");
    if (size < 1e-3) return value.toExponential(2);
    if (size < 10) return value.toFixed(4);
    if (size < 1e3) return value.toPrecision(5);
    return size < 1e9 ? value.toLocaleString("en-US", { maximumFractionDigits: 1 }) : value.toExponential(3);
  };
  const tick = (value) => {
    const size = Math.abs(value);
    const short = (scaled) => String(Number(scaled.toPrecision(4)));
    if (size >= 1e15 || (size > 0 && size < 1e-4)) return String(Number(value.toPrecision(2)).toExponential());
    if (size >= 1e9) return short(value / 1e9) + "G";
    if (size >= 1e6) return short(value / 1e6) + "M";
    if (size >= 1e4) return short(value / 1e3) + "k";
    return short(value);
  };
  const duration = (seconds) => {
    if (seconds < 120) return tick(Math.round(seconds * 10) / 10) + " s";
    if (seconds < 7200) return tick(Math.round(seconds / 6) / 10) + " min";
    return tick(Math.round(seconds / 360) / 10) + " h";
  };
  const bytes = (size) => {
    const units = ["B", "kB", "MB", "GB", "TB"];
    let unit = 0;
    for (; Math.abs(size) >= 999.5 && unit + 1 < units.length; unit++) size /= 1000;
    return `${Number(size.toPrecision(3))} ${units[unit]}`;
  };
  const axes = {
    step: { write: tick, title: "steps", read: (value) => "step " + number(value) },
    tokens: { write: tick, title: "tokens", read: (value) => number(Math.round(value)) + " tokens" },
    seconds: { write: duration, title: "time", read: duration },
  };

  const niceTicks = (min, max, count) => {
    const rough = (max - min) / Math.max(1, count);
    const unit = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 2.5, 5, 10].map((n) => n * unit).find((n) => n >= rough * 0.999);
    if (!step || !Number.isFinite(step)) return [];
    const ticks = [];
    for (let idx = Math.ceil(min / step - 1e-9); idx <= max / step + 1e-9 && ticks.length < 64; idx++) ticks.push(idx * step);
    return ticks;
  };

  // On a logarithmic scale, one, two and five of each decade, or just the decades when there are many.
  const logTicks = (min, max) => {
    const units = max - min > 4 ? [1] : max - min > 0.6 ? [1, 2, 5] : null;
    if (!units) return niceTicks(10 ** min, 10 ** max, 5).map(Math.log10);
    const ticks = [];
    for (let decade = Math.floor(min); decade <= max; decade++) {
      for (const unit of units) ticks.push(decade + Math.log10(unit));
    }
    return ticks.filter((value) => value >= min - 1e-9 && value <= max + 1e-9);
  };

  // An exponential mean that does not favour its start; what is not finite leaves it alone.
  const smoothed = (points, weight) => {
    if (!weight) return points;
    let mean = 0, total = 0;
    return points.map((point) => {
      if (!Number.isFinite(point.y)) return point;
      mean = weight * mean + (1 - weight) * point.y;
      total = weight * total + (1 - weight);
      return { ...point, y: mean / total };
    });
  };

  // Values are numbers, or the words for what JSON cannot hold.
  const words = { nan: NaN, inf: Infinity, "-inf": -Infinity };
  const value = (raw) => (typeof raw === "string" ? words[raw] : raw);
  const pointsOf = (series, axis) => {
    const xs = series[axis];
    if (!xs) return [];
    const points = [];
    series.value.forEach((raw, idx) => {
      if (xs[idx] !== null) points.push({ x: xs[idx], y: value(raw) });
    });
    return points;
  };

  // A place on the horizontal axis. Decades have none for zero and what is below.
  const along = (x) => (!state.logX ? x : x > 0 ? Math.log10(x) : -Infinity);
  // The room at the left of decades for what has no place among them.
  const GUTTER = 26;

  const charts = [];
  class Chart {
    constructor(spec, box) {
      this.spec = spec;
      this.box = box;
      const title = element("h3", {}, spec.title);
      title.append(" ", element("span", {}, spec.note));
      this.legend = element("div", { class: "legend" });
      this.svg = document.createElementNS(SVG, "svg");
      this.svg.setAttribute("role", "img");
      this.svg.setAttribute("aria-label", spec.title + " " + spec.note);
      this.tip = element("div", { class: "tip", hidden: "" });
      box.append(title, this.legend, this.svg, this.tip);
      this.fillLegend();
      [this.tick, this.number] = spec.load === "bytes" ? [bytes, bytes] : [tick, number];
      this.svg.addEventListener("pointermove", (event) => this.point(event));
      this.svg.addEventListener("pointerdown", (event) => {
        this.point(event);
        // A finger scrolls.
        if (event.pointerType === "mouse" && event.button === 0) this.pulled = event.clientX;
      });
      this.svg.addEventListener("pointerup", (event) => this.letGo(event));
      this.svg.addEventListener("pointerleave", () => {
        this.pointer = null;
        this.leave();
      });
      this.svg.addEventListener("dblclick", () => this.zoom(null));
      new ResizeObserver(() => this.draw()).observe(box);
    }

    // Whose place is a second has no other axis.
    get axis() {
      return this.spec.load ? "seconds" : state.x;
    }

    fillLegend() {
      // The title says it already.
      if (this.spec.series.length === 1 && this.spec.series[0].name === this.spec.note) return;
      const shown = this.spec.series.slice(0, 14);
      for (const series of shown) {
        const button = element("button", { type: "button", "data-key": series.key, title: "click to hide or show" });
        const sign = element("i", { class: series.marks ? "marks" : "line" });
        sign.style.background = colour(series.colour);
        button.append(sign, element("span", {}, series.name));
        button.addEventListener("click", () => {
          if (!state.hidden.delete(series.key)) state.hidden.add(series.key);
          drawAll();
        });
        this.legend.append(button);
      }
      const rest = this.spec.series.length - shown.length;
      if (rest > 0) this.legend.append(element("span", { class: "quiet" }, `and ${rest} more`));
    }

    draw() {
      const { pointer } = this;
      this.leave();
      this.put();
      // What is read stays, whatever comes meanwhile.
      if (pointer) this.point(pointer);
    }

    put() {
      for (const button of this.legend.querySelectorAll("button")) {
        button.setAttribute("aria-pressed", String(!state.hidden.has(button.dataset.key)));
      }
      const width = Math.round(this.box.clientWidth);
      const height = this.spec.wide ? Math.max(220, Math.min(360, width * 0.4)) : Math.max(170, Math.min(230, width * 0.48));
      const svg = this.svg;
      svg.replaceChildren();
      svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
      svg.setAttribute("height", height);
      this.lines = this.spec.series
        .filter((series) => !state.hidden.has(series.key))
        .map((series) => {
          const raw = pointsOf(series, this.axis).filter((point) => !this.window || (point.x >= this.window[0] && point.x <= this.window[1]));
          return { series, raw, points: series.marks ? raw : smoothed(raw, state.smooth) };
        });
      const scaled = (y) => (state.log ? Math.log10(y) : y);
      // Not spread into Math.min: a hundred thousand arguments are too many for some engines.
      const range = { x0: Infinity, x1: -Infinity, y0: Infinity, y1: -Infinity };
      if (this.spec.load && !state.log) range.y0 = 0;
      let lowest = Infinity;
      for (const line of this.lines) {
        for (const point of line.raw) {
          const x = along(point.x);
          lowest = Math.min(lowest, point.x);
          if (Number.isFinite(x)) {
            range.x0 = Math.min(range.x0, x);
            range.x1 = Math.max(range.x1, x);
          }
          const y = scaled(point.y);
          if (!Number.isFinite(y)) continue;
          range.y0 = Math.min(range.y0, y);
          range.y1 = Math.max(range.y1, y);
        }
      }
      if (lowest === Infinity) {
        this.scale = null;
        const isRead = this.lines.some((line) => line.series.value.length);
        const why = this.window ? "nothing here; a double click shows all" : !this.lines.length ? "all hidden" : isRead ? `no ${axes[this.axis].title} were recorded here` : "";
        shape(svg, "text", { x: width / 2, y: height / 2, "text-anchor": "middle", class: "tick" }, why);
        return;
      }
      const ends = this.window?.map(along) ?? [];
      if (Number.isFinite(ends[0])) range.x0 = ends[0];
      if (Number.isFinite(ends[1])) range.x1 = ends[1];
      if (range.x0 > range.x1) [range.x0, range.x1] = [0, 1];
      if (range.y0 > range.y1) [range.y0, range.y1] = [0, 1];
      if (range.y0 === range.y1) {
        const half = Math.abs(range.y0) * 0.05 || 1;
        range.y0 -= half;
        range.y1 += half;
      }
      if (range.x0 === range.x1) range.x1 = range.x0 + 1;
      const ticks = state.log ? logTicks(range.y0, range.y1) : niceTicks(range.y0, range.y1, height / 46);
      const written = ticks.map((y) => this.tick(Number((state.log ? 10 ** y : y).toPrecision(6))));
      const left = Math.max(30, 10 + 6.8 * Math.max(0, ...written.map((text) => text.length)));
      const [top, right, bottom] = [10, 12, 26];
      const begin = left + (state.logX && lowest <= 0 ? GUTTER : 0);
      const toX = (x) => {
        const at = along(x);
        return Number.isFinite(at) ? begin + ((at - range.x0) / (range.x1 - range.x0)) * (width - begin - right) : left + 8;
      };
      const toY = (y) => height - bottom - ((y - range.y0) / (range.y1 - range.y0)) * (height - top - bottom);
      this.scale = { toX, toY, scaled, range, left, begin, right, top, bottom, width, height };

      ticks.forEach((y, idx) => {
        shape(svg, "line", { class: "grid", x1: left, x2: width - right, y1: toY(y), y2: toY(y) });
        shape(svg, "text", { class: "tick", x: left - 7, y: toY(y) + 4, "text-anchor": "end" }, written[idx]);
      });
      this.putPlaces(svg, lowest);
      const many = this.lines.length > 16 ? " many" : "";
      for (const line of this.lines) {
        const stroke = colour(line.series.colour);
        if (line.series.marks) {
          this.path(line.raw, "line raw", stroke);
          for (const point of line.raw) {
            const y = scaled(point.y);
            if (Number.isFinite(y)) shape(svg, "circle", { class: "mark", cx: toX(point.x), cy: toY(y), r: 3.6 }).style.fill = stroke;
          }
        } else {
          if (state.smooth) this.path(line.raw, "line raw", stroke);
          this.path(line.points, "line" + many, stroke);
        }
        this.broken(line.raw);
      }
      this.band = shape(svg, "rect", { class: "band", y: top, height: height - top - bottom, visibility: "hidden" });
      this.cursor = shape(svg, "line", { class: "cursor", y1: top, y2: height - bottom, visibility: "hidden" });
    }

    // The horizontal axis: from the last place to the first, as far as their words have room.
    putPlaces(svg, lowest) {
      const { toX, range, left, begin, top, bottom, width, height } = this.scale;
      const axis = axes[this.axis];
      const xs = state.logX ? logTicks(range.x0, range.x1).map((x) => 10 ** x) : niceTicks(range.x0, range.x1, width / 110);
      let room = Infinity;
      xs.reverse().forEach((x, idx) => {
        const at = toX(x);
        const anchor = at > width - 60 ? "end" : at < begin + 14 ? "start" : "middle";
        const text = axis.write(Number(x.toPrecision(6))) + (idx === 0 && axis !== axes.seconds ? " " + axis.title : "");
        const length = 7 * text.length;
        const from = anchor === "end" ? Math.min(at + 10, width - 2) : at;
        const start = anchor === "end" ? from - length : anchor === "start" ? from : from - length / 2;
        if (start + length > room) return;
        room = start - 10;
        shape(svg, "text", { class: "tick", x: from, y: height - 7, "text-anchor": anchor }, text);
      });
      if (begin === left) return;
      // What has no place among the decades stands before them, behind a broken line.
      shape(svg, "line", { class: "grid gap", x1: begin - 6, x2: begin - 6, y1: top, y2: height - bottom });
      shape(svg, "text", { class: "tick", x: left + 8, y: height - 7, "text-anchor": "middle" }, lowest < 0 ? "≤ 0" : "0");
    }

    path(points, className, stroke) {
      const { toX, toY, scaled } = this.scale;
      let d = "", pen = "M", run = 0;
      for (const point of points) {
        const y = scaled(point.y);
        if (Number.isFinite(y) && !Number.isFinite(along(point.x))) {
          shape(this.svg, "circle", { class: "mark", cx: toX(point.x), cy: toY(y), r: 2.6 }).style.fill = stroke;
          continue;
        }
        if (!Number.isFinite(y)) {
          pen = "M";
          continue;
        }
        d += pen + toX(point.x).toFixed(1) + " " + toY(y).toFixed(1);
        pen = "L";
        run++;
      }
      // A single point has no length: give it one, so that it is seen.
      if (run === 1) d += "l.1 0";
      if (run) shape(this.svg, "path", { class: className, d }).style.stroke = stroke;
    }

    // Where a curve is not a number, a cross stands at the top edge: it must not look like an end. What
    // has no place among decades is below all of them.
    broken(points) {
      const { toX, top, bottom, height } = this.scale;
      let last = -Infinity, d = "";
      for (const point of points) {
        if (Number.isFinite(this.scale.scaled(point.y))) continue;
        const x = toX(point.x);
        if (x - last < 9) continue;
        last = x;
        const y = state.log && point.y <= 0 ? height - bottom : top;
        d += `M${(x - 3).toFixed(1)} ${y - 3}l6 6m0 -6l-6 6`;
      }
      if (d) shape(this.svg, "path", { class: "broken", d });
    }

    // The place on the horizontal axis that a pointer is at.
    under(clientX) {
      const { range, left, begin, right, width } = this.scale;
      const at = clientX - this.svg.getBoundingClientRect().left;
      if (begin > left && at < begin - 6) return 0;
      const share = (at - begin) / (width - begin - right);
      const x = range.x0 + Math.min(1, Math.max(0, share)) * (range.x1 - range.x0);
      return state.logX ? 10 ** x : x;
    }

    zoom(ends) {
      this.window = ends;
      this.draw();
      page.zoomed?.(this);
    }

    letGo(event) {
      const [from, to] = [this.pulled, event.clientX].sort((a, b) => a - b);
      this.pulled = null;
      if (this.scale && from !== null && to - from > 8) this.zoom([this.under(from), this.under(to)]);
      else if (this.found?.length) page.pointed?.(this);
    }

    point(event) {
      this.pointer = event;
      if (!this.scale || this.tip.classList.contains("kept")) return;
      const { toX, left, right, width } = this.scale;
      const box = this.svg.getBoundingClientRect();
      const x = this.under(event.clientX);
      if (this.pulled != null && Math.abs(event.clientX - this.pulled) > 8) {
        const ends = [toX(this.under(this.pulled)), toX(x)].sort((a, b) => a - b);
        this.band.setAttribute("x", ends[0]);
        this.band.setAttribute("width", ends[1] - ends[0]);
        this.band.setAttribute("visibility", "visible");
      }
      const far = (point) => Math.abs(toX(point.x) - toX(x));
      const nearest = (points) => {
        let low = 0, high = points.length - 1;
        while (high - low > 1) {
          const middle = (low + high) >> 1;
          if (points[middle].x < x) low = middle;
          else high = middle;
        }
        return far(points[low]) <= far(points[high]) ? points[low] : points[high];
      };
      const reach = (width - left - right) / 12;
      const found = this.lines
        .filter((line) => line.points.length)
        .map((line) => ({ series: line.series, at: nearest(line.points) }))
        .filter((hit) => far(hit.at) <= reach);
      this.found = found;
      if (!found.length) return this.leave();
      const at = found.reduce((best, hit) => (far(hit.at) < far(best) ? hit.at : best), found[0].at).x;
      this.cursor.setAttribute("x1", toX(at));
      this.cursor.setAttribute("x2", toX(at));
      this.cursor.setAttribute("visibility", "visible");
      this.tip.replaceChildren(element("b", {}, axes[this.axis].read(at)));
      for (const hit of found.slice(0, 12)) {
        const row = element("div");
        const sign = element("i");
        sign.style.background = colour(hit.series.colour);
        row.append(sign, element("span", {}, hit.series.name), element("strong", {}, this.number(hit.at.y)));
        this.tip.append(row);
      }
      this.tip.hidden = false;
      const side = event.clientX - box.left > width / 2 ? -this.tip.offsetWidth - 16 : 16;
      this.tip.style.left = Math.min(Math.max(0, event.clientX - box.left + side), Math.max(0, width - this.tip.offsetWidth)) + "px";
      this.tip.style.top = box.top - this.box.getBoundingClientRect().top + 12 + "px";
    }

    leave() {
      if (this.tip.classList.contains("kept")) return;
      this.tip.hidden = true;
      this.found = [];
      if (this.cursor) this.cursor.setAttribute("visibility", "hidden");
    }
  }

  const drawAll = () => charts.forEach((chart) => chart.draw());
  // What a live page goes on from; in a file nobody does.
  const page = (globalThis.page = { charts, drawAll, element, shape, number, colour, state, axes });

  page.build = (specs) => {
    const holder = document.getElementById("charts");
    if (!holder) return;
    const windows = new Map(charts.map((chart) => [chart.spec.title + " " + chart.spec.note, chart.window]));
    charts.length = 0;
    holder.replaceChildren();
    for (const spec of specs) {
      const box = element("div", { class: spec.wide ? "chart wide" : "chart" });
      holder.append(box);
      const chart = new Chart(spec, box);
      chart.window = windows.get(spec.title + " " + spec.note);
      charts.push(chart);
    }
    drawAll();
    for (const chart of charts) if (chart.window) page.zoomed?.(chart);
  };
  page.build(data.charts);

  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-x]");
    if (!button) return;
    state.x = button.dataset.x;
    for (const other of document.querySelectorAll("[data-x]")) other.setAttribute("aria-pressed", String(other === button));
    for (const chart of charts) if (chart.window) chart.zoom(null);
    drawAll();
  });
  document.addEventListener("input", (event) => {
    if (event.target.id === "log") state.log = event.target.checked;
    else if (event.target.id === "smooth") state.smooth = Number(event.target.value);
    else return;
    drawAll();
  }, true);

  // Sorting: numbers by their value, the rest as text; what is missing stays last either way.
  page.sortable = (root) => root.querySelectorAll("table.sortable").forEach((table) => {
    table.querySelectorAll("th").forEach((heading, column) => {
      const button = element("button", { type: "button" }, heading.textContent);
      heading.replaceChildren(button);
      button.addEventListener("click", () => {
        const descending = heading.getAttribute("aria-sort") === "ascending";
        for (const other of table.querySelectorAll("th")) other.removeAttribute("aria-sort");
        heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
        const key = (row) => {
          const cell = row.cells[column];
          const text = cell.dataset.v ?? cell.textContent.trim();
          if (text === "" || text === "–" || text === "nan") return null;
          const figure = Number(text);
          return Number.isNaN(figure) ? text : figure;
        };
        const compare = (a, b) => {
          if (a === null || b === null) return (a === null) - (b === null);
          const order = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
          return descending ? -order : order;
        };
        const rows = [...table.tBodies[0].rows].map((row) => ({ row, key: key(row) }));
        rows.sort((a, b) => compare(a.key, b.key));
        table.tBodies[0].append(...rows.map(({ row }) => row));
      });
    });
  });
  page.sortable(document);

  document.addEventListener("click", (event) => {
    if (!event.target.closest("#theme")) return;
    const root = document.documentElement;
    const isDark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = isDark ? "light" : "dark";
  });
})();
