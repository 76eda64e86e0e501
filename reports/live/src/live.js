"use strict";
// What a page that lives does beyond a page: it follows a stream of what changes, fetches the piece
// of a curve that somebody looks at, and leads from what is shown to where more is told.
(() => {
  const { live } = JSON.parse(document.getElementById("data").textContent);
  const { charts, element } = page;
  const view = document.getElementById("view");
  const state = document.getElementById("state");
  const of = encodeURIComponent(live.of);
  const digests = live.pieces;
  const piece = (id) => [...view.children].find((node) => node.dataset.piece === id);

  // --- pieces ---------------------------------------------------------------------------------

  // A piece is replaced whole; what its reader has opened in it stays open.
  const replace = (node, html) => {
    const isOpen = new Set([...node.querySelectorAll("details[open] > summary")].map((summary) => summary.textContent));
    const step = node.querySelector(".steps input")?.value;
    node.innerHTML = html;
    for (const summary of node.querySelectorAll("summary")) {
      if (isOpen.has(summary.textContent)) summary.parentElement.open = true;
    }
    dress(node, step);
  };

  const takePieces = (changed, order) => {
    for (const [id, [digest, html]] of Object.entries(changed)) {
      if (digests[id] === digest) continue;
      digests[id] = digest;
      let node = piece(id);
      if (!node) {
        node = element("div", { class: "piece", "data-piece": id });
        view.append(node);
      }
      // The script draws these; only their points change.
      if (!node.querySelector("#charts")) replace(node, html);
    }
    if (!order) return;
    const isKept = (node) => order.includes(node.dataset.piece) || node.querySelector("#charts");
    for (const node of [...view.children]) if (!isKept(node)) node.remove();
    let last = null;
    for (const id of order) {
      const node = piece(id);
      if (!node) continue;
      const isBehind = !last || last.compareDocumentPosition(node) & Node.DOCUMENT_POSITION_FOLLOWING;
      if (!isBehind) last.after(node);
      last = node;
    }
  };

  // --- curves ---------------------------------------------------------------------------------

  const lines = (id) => charts.flatMap((chart) => chart.spec.series).filter((line) => line.id === id);
  // Points that came since the curve was last thinned; beyond some it is asked for anew.
  let added = 0;
  const ADDED_MAX = 5000;

  const put = (line, points) => {
    points.step.forEach((step, idx) => {
      let at = line.step.length;
      while (at > 0 && line.step[at - 1] >= step) at--;
      const isThere = line.step[at] === step ? 1 : 0;
      line.step.splice(at, isThere, step);
      line.seconds.splice(at, isThere, points.seconds[idx]);
      line.value.splice(at, isThere, points.value[idx]);
      if (line.tokens) line.tokens.splice(at, isThere, points.tokens ? points.tokens[idx] : null);
    });
    added += points.step.length;
  };

  // While all curves are asked for anew, what comes waits for them.
  let waiting = null;
  const takePoints = (points) => {
    if (waiting) return void waiting.push(points);
    const ids = Object.keys(points ?? {});
    if (!points || ids.some((id) => lines(id).length === 0) || added > ADDED_MAX) return void reload();
    const touched = new Set(ids);
    for (const id of ids) for (const line of lines(id)) put(line, points[id]);
    for (const chart of charts) if (chart.spec.series.some((line) => touched.has(line.id))) chart.draw();
  };
  // The same metric of several stages in one chart, or each for itself.
  let isTogether = false;
  const together = (specs) => {
    const byMetric = new Map();
    for (const spec of specs) {
      const known = byMetric.get(spec.note) ?? { ...spec, title: "all stages", series: [] };
      for (const line of spec.series) {
        known.series.push({ ...line, key: `${spec.title} ${line.name}`, name: `${spec.title} ${line.name}`, colour: known.series.length });
      }
      known.wide ||= spec.wide;
      byMetric.set(spec.note, known);
    }
    return [...byMetric.values()];
  };
  const tick = (label, title, change) => {
    const box = element("input", { type: "checkbox" });
    box.addEventListener("change", () => change(box.checked));
    const told = element("label", { title }, ` ${label}`);
    told.prepend(box);
    return told;
  };
  const across = tick("logarithmic →", "the horizontal axis in decades", (isOn) => {
    page.state.logX = isOn;
    page.drawAll();
    reload();
  });
  const merged = tick("stages together", "a metric of all stages in one chart", (isOn) => {
    isTogether = isOn;
    build(all);
  });
  merged.hidden = true;
  let all = page.charts.map((chart) => chart.spec);
  const build = (specs) => {
    merged.hidden = !/^\/run\/[^/]+$/.test(live.of) || new Set(specs.map((spec) => spec.title)).size < 2;
    page.build(isTogether ? together(specs) : specs);
  };

  // The points of a line that a pixel can show: its lowest and its highest.
  const pointsOf = (chart) => 2 * Math.ceil(chart.box.clientWidth);
  const widest = (charts) => Math.max(0, ...charts.map(pointsOf));
  const spread = () => (page.state.logX ? "&log" : "");
  let asked = 0;
  const reload = async () => {
    if (waiting) return;
    waiting = [];
    added = 0;
    asked = widest(charts);
    const [large, small] = [true, false].map((isWide) => widest(charts.filter((chart) => chart.spec.wide === isWide)));
    const room = charts.length ? "" : 2 * view.clientWidth;
    const answer = await fetch(`/charts?of=${of}&large=${large || small || room}&small=${small || large || room}${spread()}`).catch(() => null);
    const come = waiting;
    waiting = null;
    if (!answer?.ok) return;
    all = (await answer.json()).charts;
    build(all);
    for (const points of come) takePoints(points);
  };
  // Turned or widened, a page has room for more.
  addEventListener("resize", () => {
    if (widest(charts) > 1.2 * asked) reload();
  });

  // A zoomed chart is drawn from the points of what it shows, not from the few of the whole.
  page.zoomed = async (chart) => {
    const x = chart.axis;
    if (!chart.window) {
      for (const line of chart.spec.series) if (line.whole) Object.assign(line, line.whole, { whole: null });
      return chart.draw();
    }
    const asked = chart.window;
    await Promise.all(chart.spec.series.map(async (line) => {
      line.whole ??= { step: line.step, tokens: line.tokens, seconds: line.seconds, value: line.value };
      const xs = line.whole[x] ?? [];
      const inside = line.whole.step.filter((_, idx) => xs[idx] >= asked[0] && xs[idx] <= asked[1]);
      if (!inside.length) return;
      const before = line.whole.step.findLast((step) => step < inside[0]) ?? 0;
      const after = line.whole.step.find((step) => step > inside.at(-1)) ?? "";
      const answer = await fetch(`/curve?id=${encodeURIComponent(line.id)}&from=${before}&to=${after}&points=${pointsOf(chart)}${spread()}`);
      const points = answer.ok ? (await answer.json())[line.id] : null;
      if (points && chart.window === asked) Object.assign(line, points);
    }));
    if (chart.window === asked) chart.draw();
  };

  // From a point to the stage that wrote it, its artifact and what that was made from.
  page.pointed = (chart) => {
    const tip = chart.tip;
    const links = new Map();
    for (const { series } of chart.found) links.set(series.at, series.at.replace(/^run\//, ""));
    for (const [at, name] of links) tip.append(element("a", { href: "/" + at }, name));
    tip.classList.add("kept");
    setTimeout(() => {
      tip.classList.remove("kept");
      chart.leave();
    }, 6000);
  };

  // --- the stream -----------------------------------------------------------------------------

  // Of what is drawn it may repeat a little, and leave out nothing.
  const source = new EventSource(`/stream?of=${of}&since=${live.since}`);
  const say = (text, kind) => {
    state.textContent = text;
    state.className = kind;
  };
  source.onopen = () => say("live", "going");
  source.onerror = () => {
    say("connection lost, trying again", "lost");
    // Refused rather than lost, which a source does not try again.
    if (source.readyState === EventSource.CLOSED) setTimeout(() => location.reload(), 5000);
  };
  source.addEventListener("wrong", (event) => {
    say(event.data, "lost");
    source.close();
    setTimeout(() => location.reload(), 5000);
  });
  source.onmessage = (event) => {
    const news = JSON.parse(event.data);
    takePieces(news.pieces, news.order);
    takePoints(news.points);
  };

  // A browser keeps pages that were left for the way back, their streams open, and opens six connections to one
  // place: the seventh page would wait for a minute.
  addEventListener("pagehide", () => source.close());
  addEventListener("pageshow", (event) => {
    if (event.persisted) location.reload();
  });

  // --- what a reader can do -------------------------------------------------------------------

  const models = new Set(live.models);
  const chosen = new Set(JSON.parse(sessionStorage.getItem("chosen") ?? "[]"));
  const pins = () => JSON.parse(localStorage.getItem("pins") ?? "[]");

  const dress = (root, step) => {
    page.sortable(root);
    for (const cell of root.querySelectorAll("td[data-at]")) {
      const link = element("a", { href: "/" + cell.dataset.at }, cell.textContent);
      cell.replaceChildren(link);
      const parts = cell.dataset.at.split("/");
      if (parts.length === 3 && models.has(cell.nextElementSibling?.textContent) && /^(made|hit|running|cancelled|interrupted|failed)/.test(cell.parentElement.cells[2]?.textContent)) {
        cell.append(" ", element("a", { class: "pin", href: `/play/${parts[1]}/${parts[2]}/`, title: "talk to this model" }, "talk"));
        talkTo(cell, `${parts[1]}/${parts[2]}`);
      }
    }
    for (const node of root.querySelectorAll("g[data-at]")) node.addEventListener("click", () => (location.href = "/" + node.dataset.at));
    for (const node of root.querySelectorAll(".open[data-at]")) openRun(node);
    if (root.querySelector(".list")) listed(root);
    for (const details of root.querySelectorAll("details")) samplesByStep(details, step);
    for (const controls of root.querySelectorAll(".controls")) controls.append(across, merged);
  };

  // The steps of a model whose weights are kept, each to be talked to by itself.
  const talkTo = async (cell, model) => {
    const answer = await fetch(`/steps/${model}`);
    const steps = answer.ok ? await answer.json() : [];
    if (steps.length < 2) return;
    for (const step of steps) cell.append(" ", element("a", { class: "pin", href: `/play/${model}@${step}/`, title: `talk to the weights of step ${step}` }, `@${step}`));
  };

  const openRun = (node) => {
    const title = node.querySelector("h1");
    const name = node.dataset.at.slice(4);
    const link = element("a", { href: "/" + node.dataset.at }, name);
    title.firstChild.replaceWith(link);
    const isPinned = pins().includes(name);
    const pin = element("button", { type: "button", class: "pin" }, isPinned ? "unpin" : "pin");
    pin.addEventListener("click", () => {
      const rest = pins().filter((other) => other !== name);
      localStorage.setItem("pins", JSON.stringify(isPinned ? rest : [...rest, name]));
      location.href = withPins();
    });
    title.append(" ", pin);
  };

  const withPins = () => {
    const address = new URL(location.href);
    address.searchParams.delete("pin");
    for (const name of pins()) address.searchParams.append("pin", name);
    return address.pathname + address.search;
  };

  const listed = (root) => {
    for (const cell of root.querySelectorAll(".list td[data-at^='run/']")) {
      const name = cell.dataset.at.slice(4);
      const box = element("input", { type: "checkbox", "aria-label": `compare ${name}` });
      box.checked = chosen.has(name);
      box.addEventListener("change", () => {
        if (box.checked) chosen.add(name);
        else chosen.delete(name);
        sessionStorage.setItem("chosen", JSON.stringify([...chosen]));
        tools(root);
      });
      cell.prepend(box);
    }
    root.querySelector("#more")?.addEventListener("click", (event) => {
      const address = new URL(location.href);
      address.searchParams.set("limit", event.target.dataset.limit);
      location.href = address.pathname + address.search;
    });
    tools(root);
  };

  const tools = (root) => {
    root.querySelector(".tools")?.remove();
    if (!chosen.size) return;
    const row = element("div", { class: "tools" });
    const compare = element("button", { type: "button" }, `compare ${chosen.size}`);
    compare.disabled = chosen.size < 2;
    compare.addEventListener("click", () => (location.href = "/compare?" + [...chosen].map((name) => "run=" + encodeURIComponent(name)).join("&")));
    const none = element("button", { type: "button" }, "none");
    none.addEventListener("click", () => {
      chosen.clear();
      sessionStorage.removeItem("chosen");
      for (const box of root.querySelectorAll("td input")) box.checked = false;
      tools(root);
    });
    row.append(compare, none, element("span", {}, [...chosen].slice(0, 6).join(", ")));
    root.querySelector(".list h2").after(row);
  };

  // Samples that were written along the way: one step at a time, chosen by a slider.
  const samplesByStep = (details, step) => {
    const titles = [...details.querySelectorAll(":scope > h3")].filter((title) => title.textContent.startsWith("step "));
    if (titles.length < 2) return;
    const shown = element("span");
    const slider = element("input", { type: "range", min: 0, max: titles.length - 1, value: step ?? titles.length - 1, "aria-label": "step" });
    const show = () => {
      titles.forEach((title, idx) => {
        const isShown = idx === Number(slider.value);
        title.hidden = true;
        title.nextElementSibling.hidden = !isShown;
        if (isShown) shown.textContent = title.textContent.trim();
      });
    };
    slider.addEventListener("input", show);
    const row = element("div", { class: "steps" });
    row.append(slider, shown);
    details.querySelector("summary").after(row);
    show();
  };

  // Zooming and pins survive a reload; pins are this browser's own.
  if (live.of.split("?")[0] === "/" && pins().length && !new URL(location.href).searchParams.has("pin")) location.replace(withPins());

  for (const form of document.querySelectorAll("#change")) {
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("click", async (event) => {
      const kind = event.target.dataset.change;
      if (!kind) return;
      const words = document.getElementById("words");
      const wish = kind === "stop" ? { stop: true } : { [kind]: words.value };
      const answer = await fetch(`/change/${encodeURIComponent(live.run)}`, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(wish) });
      if (answer.ok) words.value = "";
      else say(await answer.text(), "lost");
    });
  }

  dress(view);
  reload();
})();
