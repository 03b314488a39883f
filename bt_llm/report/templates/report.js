"use strict";
// Charts of the report: a time axis of bars that can be zoomed and moved, over panes that share it.
(function () {
  const LEFT = 8, RIGHT = 62, FOOT = 22, GAP = 14, LEAST = 12;
  const specs = JSON.parse(document.getElementById("charts").textContent);
  const shown = (worth) => worth === null ? "--invalid" : worth > 0 ? "--bull" : worth < 0 ? "--bear" : "--neutral";

  const element = (kind, parent, text, name) => {
    const made = document.createElement(kind);
    if (text) made.textContent = text;
    if (name) made.className = name;
    parent.appendChild(made);
    return made;
  };
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const clamp = (value, low, high) => Math.max(low, Math.min(high, value));
  const stamp = (second) => new Date(second * 1000).toISOString().slice(0, 16).replace("T", " ");
  const plain = (value) => Math.abs(value) >= 1000 ? value.toLocaleString("en-US", {maximumFractionDigits: 0})
    : Number(value.toPrecision(6)).toString();
  const percent = (value) => (100 * value).toFixed(1) + " %";

  function range(lists, from, to) {
    let low = Infinity, high = -Infinity;
    for (const list of lists) for (let i = from; i <= to; i++) {
      if (list[i] < low) low = list[i];
      if (list[i] > high) high = list[i];
    }
    const margin = (high - low) * 0.05 || Math.abs(high) * 0.01 || 1;
    return [low - margin, high + margin];
  }

  function steps(low, high, wanted) {
    const rough = (high - low) / wanted, power = 10 ** Math.floor(Math.log10(rough));
    const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
    const found = [];
    for (let value = Math.ceil(low / step) * step; value <= high; value += step) found.push(value);
    return found;
  }

  function chart(box, spec) {
    const last = spec.times.length - 1, isPrice = spec.kind === "price";
    const most = isPrice ? Math.max(0, ...spec.answers.map(([, worth]) => Math.abs(worth))) : 0;
    const strength = (worth) => worth ? Math.abs(worth) / most : 1;
    const answer = (i) => spec.answers[spec.verdicts.charCodeAt(i) - 97];
    const bar = element("div", box, "", "bar"), buttons = element("span", bar, "", "group");
    const keys = isPrice ? spec.answers.map(([name, worth]) => [name, shown(worth), strength(worth)]) : spec.names.map((name, i) => [name, "--c" + i % 6]);
    for (const [name, variable, opacity] of keys) {
      const key = element("span", bar, "", "key"), patch = element("i", key);
      patch.style.background = "var(" + variable + ")";
      if (opacity) patch.style.opacity = opacity;
      element("span", key, name);
    }
    const readout = element("div", box, "", "readout"), canvas = element("canvas", box), context = canvas.getContext("2d");
    canvas.tabIndex = 0;
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", box.dataset.title);
    const heights = isPrice ? [320] : [240, 110];
    const total = heights.reduce((sum, height) => sum + height + GAP, FOOT);
    canvas.style.height = total + "px";
    let from = 0, to = last, pointed = null, width = 0;

    const across = (i) => LEFT + (i - from) / Math.max(1e-9, to - from) * (width - LEFT - RIGHT);
    const at = (x) => from + (x - LEFT) / (width - LEFT - RIGHT) * (to - from);

    function show(low, high) {
      const span = clamp(high - low, Math.min(LEAST, last), last);
      const start = clamp((low + high - span) / 2, 0, last - span);
      from = start; to = start + span;
      draw();
    }
    const zoom = (factor, about) => show(about - (about - from) * factor, about + (to - about) * factor);
    const middle = () => (from + to) / 2;

    function axes(top, height, low, high, written) {
      context.font = "12px system-ui, sans-serif";
      context.lineWidth = 1;
      context.textBaseline = "middle";
      context.textAlign = "left";
      const upwards = (value) => top + height - (value - low) / (high - low) * height;
      for (const value of steps(low, high, height > 150 ? 5 : 3)) {
        const y = Math.round(upwards(value)) + 0.5;
        context.strokeStyle = colour("--grid");
        context.beginPath(); context.moveTo(LEFT, y); context.lineTo(width - RIGHT, y); context.stroke();
        context.fillStyle = colour("--muted");
        context.fillText(written(value), width - RIGHT + 6, y);
      }
      return upwards;
    }

    function line(values, upwards, first, end, fill) {
      context.beginPath();
      for (let i = first; i <= end; i++) context.lineTo(across(i), upwards(values[i]));
      context.stroke();
      if (fill) {
        context.lineTo(across(end), upwards(0)); context.lineTo(across(first), upwards(0));
        context.globalAlpha = 0.12; context.fill(); context.globalAlpha = 1;
      }
    }

    function inside(top, height, drawing) {
      context.save();
      context.beginPath(); context.rect(LEFT, top - 4, width - LEFT - RIGHT, height + 8); context.clip();
      drawing();
      context.restore();
    }

    function drawEquity(first, end) {
      const panes = [[spec.values, plain, false], [spec.falls, percent, true]];
      let top = GAP / 2;
      panes.forEach(([lists, written, fill], pane) => {
        const limits = range(lists, first, end), low = limits[0], high = fill ? Math.max(0, limits[1]) : limits[1];
        const upwards = axes(top, heights[pane], low, high, written);
        inside(top, heights[pane], () => lists.forEach((values, i) => {
          context.strokeStyle = context.fillStyle = colour("--c" + i % 6);
          context.lineWidth = i === 0 ? 2 : 1.3;
          line(values, upwards, first, end, fill && i === 0);
        }));
        top += heights[pane] + GAP;
      });
    }

    function drawPrice(first, end) {
      const [opens, highs, lows, closes] = spec.ohlc, top = GAP / 2, height = heights[0];
      const [low, high] = range([highs, lows], first, end);
      const each = (width - LEFT - RIGHT) / Math.max(1, to - from);
      inside(top, height, () => {
        for (let i = first; i <= end;) {
          let stop = i;
          while (stop < end && spec.verdicts[stop + 1] === spec.verdicts[i]) stop++;
          const said = answer(i);
          if (said && said[1] !== 0) {
            context.globalAlpha = 0.2 * strength(said[1]);
            context.fillStyle = colour(shown(said[1]));
            context.fillRect(across(i - 0.5), top, across(stop + 0.5) - across(i - 0.5), height);
          }
          i = stop + 1;
        }
        context.globalAlpha = 1;
      });
      const upwards = axes(top, height, low, high, plain);
      inside(top, height, () => {
        context.strokeStyle = colour("--muted");
        context.lineWidth = 1;
        context.setLineDash([2, 3]);
        context.fillStyle = colour("--muted");
        for (const [begin, stop, name] of spec.stretches) {
          const x = across(begin - 0.5), label = name.split(",")[0];
          context.beginPath(); context.moveTo(x, top); context.lineTo(x, top + height); context.stroke();
          if (context.measureText(label).width + 8 < across(stop) - x) context.fillText(label, x + 4, top + 8);
        }
        context.setLineDash([]);
        context.strokeStyle = colour("--ink");
        if (each < 5) {
          context.lineWidth = 1.2;
          line(closes, upwards, first, end, false);
        } else for (let i = first; i <= end; i++) {
          const x = across(i), body = Math.max(1, Math.abs(upwards(opens[i]) - upwards(closes[i])));
          context.strokeStyle = context.fillStyle = colour(closes[i] >= opens[i] ? "--ink" : "--muted");
          context.beginPath(); context.moveTo(x, upwards(highs[i])); context.lineTo(x, upwards(lows[i])); context.stroke();
          context.fillRect(x - each * 0.3, Math.min(upwards(opens[i]), upwards(closes[i])), each * 0.6, body);
        }
        for (const [opened, closed, entry, exit, side, result] of spec.trades) {
          if (closed < first || opened > end) continue;
          const x = across(opened), y = upwards(entry), u = across(closed), v = upwards(exit);
          context.strokeStyle = context.fillStyle = colour(result > 0 ? "--bull" : "--bear");
          context.lineWidth = 1.5;
          context.setLineDash([4, 3]);
          context.beginPath(); context.moveTo(x, y); context.lineTo(u, v); context.stroke();
          context.setLineDash([]);
          context.beginPath();
          context.moveTo(x, y); context.lineTo(x - 5, y + side * 10); context.lineTo(x + 5, y + side * 10);
          context.fill();
          context.beginPath();
          context.moveTo(u - 4, v - 4); context.lineTo(u + 4, v + 4); context.moveTo(u - 4, v + 4); context.lineTo(u + 4, v - 4);
          context.stroke();
        }
      });
    }

    function words(i) {
      if (!isPrice) return stamp(spec.times[i]) + "   " + spec.names.map((name, k) =>
        name + " " + plain(spec.values[k][i]) + " (" + percent(spec.falls[k][i]) + ")").join("   ");
      const [opens, highs, lows, closes] = spec.ohlc.map((list) => plain(list[i]));
      const verdict = answer(i), sure = spec.confidence && spec.confidence[i];
      const trade = spec.trades.find((one) => one[0] <= i && i <= one[1]);
      const stretch = spec.stretches.find((one) => one[0] <= i && i <= one[1]);
      return stamp(spec.times[i]) + "   open " + opens + ", high " + highs + ", low " + lows + ", close " + closes
        + (verdict ? "   " + verdict[0] + (sure !== null ? ", confidence " + percent(sure) : "") : "")
        + (trade ? "   in a " + (trade[4] > 0 ? "long" : "short") + " trade that came to " + trade[5].toFixed(2) : "")
        + (stretch ? "   " + stretch[2] : "");
    }

    function draw() {
      const scale = window.devicePixelRatio || 1;
      width = canvas.clientWidth;
      canvas.width = Math.round(width * scale);
      canvas.height = Math.round(total * scale);
      context.setTransform(scale, 0, 0, scale, 0, 0);
      const first = Math.max(0, Math.floor(from)), end = Math.min(last, Math.ceil(to));
      (isPrice ? drawPrice : drawEquity)(first, end);
      context.fillStyle = colour("--muted");
      context.textBaseline = "alphabetic";
      const labels = Math.max(2, Math.floor(width / 190)), days = spec.times[end] - spec.times[first] > 4 * 86400;
      for (let k = 0; k < labels; k++) {
        const i = clamp(Math.round(from + (to - from) * k / (labels - 1)), first, end);
        context.textAlign = k === 0 ? "left" : k === labels - 1 ? "right" : "center";
        context.fillText(stamp(spec.times[i]).slice(0, days ? 10 : 16), across(i), total - 6);
      }
      if (pointed !== null) {
        context.strokeStyle = colour("--muted");
        context.lineWidth = 1;
        context.beginPath(); context.moveTo(across(pointed), 0); context.lineTo(across(pointed), total - FOOT); context.stroke();
      }
      readout.textContent = pointed !== null ? words(pointed)
        : stamp(spec.times[first]) + " to " + stamp(spec.times[end]) + ". Drag to move, + and - or Ctrl and the wheel to zoom.";
    }

    for (const [label, name, act] of [["+", "zoom in", () => zoom(0.5, middle())], ["-", "zoom out", () => zoom(2, middle())],
      ["All", "show all", () => show(0, last)]]) {
      const button = element("button", buttons, label);
      button.type = "button";
      button.setAttribute("aria-label", name);
      button.addEventListener("click", act);
    }

    const pointers = new Map();
    const place = (event) => event.clientX - canvas.getBoundingClientRect().left;
    canvas.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !event.metaKey && !event.shiftKey) return;
      event.preventDefault();
      zoom(Math.exp((event.deltaY || event.deltaX) / 400), at(place(event)));
    }, {passive: false});
    canvas.addEventListener("dblclick", (event) => zoom(0.4, at(place(event))));
    canvas.addEventListener("pointerdown", (event) => {
      pointers.set(event.pointerId, place(event));
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", (event) => {
      const x = place(event), before = pointers.get(event.pointerId);
      if (before !== undefined) {
        const others = [...pointers].filter(([id]) => id !== event.pointerId).map(([, other]) => other);
        pointers.set(event.pointerId, x);
        if (others.length) {
          const was = Math.abs(before - others[0]), now = Math.abs(x - others[0]);
          if (was > 10 && now > 10) zoom(was / now, at((x + others[0]) / 2));
        } else {
          const moved = at(before) - at(x);
          show(from + moved, to + moved);
        }
      }
      pointed = clamp(Math.round(at(x)), 0, last);
      draw();
    });
    for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, (event) => pointers.delete(event.pointerId));
    canvas.addEventListener("pointerleave", () => { pointed = null; draw(); });
    canvas.addEventListener("keydown", (event) => {
      const step = (to - from) / 5;
      const acts = {"+": () => zoom(0.5, middle()), "=": () => zoom(0.5, middle()), "-": () => zoom(2, middle()), "0": () => show(0, last),
        ArrowLeft: () => show(from - step, to - step), ArrowRight: () => show(from + step, to + step)};
      if (acts[event.key]) { event.preventDefault(); acts[event.key](); }
    });
    new ResizeObserver(() => { if (canvas.clientWidth !== width) draw(); }).observe(canvas);
    window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
    draw();
  }

  document.querySelectorAll("[data-chart]").forEach((box) => chart(box, specs[Number(box.dataset.chart)]));
  document.documentElement.dataset.charts = String(specs.length);
})();
