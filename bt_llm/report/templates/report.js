"use strict";
// The charts of the page, drawn by uPlot. Time runs in bars, so that nights and weekends take no room.
(function () {
  const LEAST = 12,
    CANDLE = 5,
    PAPER = 900; // pixels across a page of paper
  const specs = JSON.parse(document.getElementById("charts").textContent);
  const root = document.documentElement,
    drawn = [];
  const colour = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  const inked = (name) => () => colour(name);
  const clamp = (value, low, high) => Math.max(low, Math.min(high, value));
  const stamp = (second) => new Date(second * 1000).toISOString().slice(0, 16).replace("T", " ");
  const plain = (value) =>
    Math.abs(value) >= 1000
      ? value.toLocaleString("en-US", { maximumFractionDigits: 0 })
      : Number(value.toPrecision(6)).toString();
  const percent = (value, digits = 1) => (100 * value).toFixed(digits) + " %";
  const written = { number: plain, percent };

  const element = (kind, parent, text, name) => {
    const made = document.createElement(kind);
    if (text) made.textContent = text;
    if (name) made.className = name;
    parent.appendChild(made);
    return made;
  };

  // Ticks at the first bars of years, months, days or hours: the coarsest of them that come at least three times.
  function ticks(spec, xs) {
    const stamps = spec.times.map(stamp);
    let labels = new Map();
    const splits = (u, axis, low, high) => {
      const first = Math.max(1, u.valToIdx(low)),
        last = u.valToIdx(high);
      let found = [],
        length = 4;
      for (length of [4, 7, 10, 13, 16]) {
        found = [];
        for (let i = first; i <= last; i++)
          if (stamps[i].slice(0, length) !== stamps[i - 1].slice(0, length)) found.push(i);
        if (found.length > 2) break;
      }
      const apart = Math.ceil(found.length / Math.max(2, Math.floor(u.bbox.width / devicePixelRatio / 95)));
      found = found.filter((_, k) => k % apart === 0);
      const from = length > 10 ? 5 : 0;
      labels = new Map(found.map((i) => [xs[i], stamps[i].slice(from, length > 10 ? 16 : length)]));
      return [...labels.keys()];
    };
    return { splits, values: (u, places) => places.map((place) => labels.get(place) || "") };
  }

  const axis = (more) => ({
    stroke: inked("--muted"),
    font: "12px system-ui, sans-serif",
    ticks: { show: false },
    grid: { stroke: inked("--grid"), width: 1 },
    ...more,
  });

  function plot(box, spec, xs, pane, series, data, hooks) {
    const { splits, values } = ticks(spec, xs),
      write = written[pane.unit];
    const height = pane.height,
      step = (u, i, low, high) => uPlot.rangeNum(low, high, 0.08, true);
    const made = new uPlot(
      {
        width: Math.max(200, box.clientWidth),
        height,
        pxAlign: 1,
        scales: {
          x: { time: false },
          y: {
            range: pane.fill
              ? (u, low, high) => [low * 1.08 - 1e-9, Math.max(0, high)]
              : (u, low, high) => step(u, 1, low, high),
          },
        },
        axes: [
          axis({ splits, values, size: 28, gap: 6 }),
          axis({
            side: 1,
            size: 66,
            gap: 6,
            space: 24,
            values: (u, places) => places.map((v) => (v === null ? "" : write(v))),
          }),
        ],
        cursor: {
          sync: { key: box.dataset.chart },
          points: { show: pane.unit !== "price" },
          y: false,
          drag: { x: true, y: false, dist: 4 },
        },
        legend: { show: !hooks },
        series,
        hooks: hooks || {},
      },
      data,
      box,
    );
    made.root.setAttribute("role", "img");
    made.root.setAttribute("aria-label", box.dataset.title + (pane.title ? ": " + pane.title : ""));
    drawn.push(made);
    return made;
  }

  // Buttons, keys and the wheel for all panes of a chart; dragging a stretch is uPlot's own.
  function zooming(box, bar, plots, xs) {
    const low = xs[0],
      high = xs[xs.length - 1],
      first = plots[0];
    let sent = null; // what uPlot was told and has not drawn yet
    const view = () => sent || [first.scales.x.min, first.scales.x.max];
    (first.hooks.setScale ||= []).push(() => {
      sent = null;
    });
    const show = (from, to) => {
      const span = clamp(to - from, Math.min(LEAST, high - low), high - low);
      const start = clamp((from + to - span) / 2, low, high - span);
      sent = [start, start + span];
      for (const one of plots) one.setScale("x", { min: start, max: start + span });
    };
    const zoom = (factor, about) => {
      const [min, max] = view(),
        place = about === undefined ? (min + max) / 2 : about;
      show(place - (place - min) * factor, place + (max - place) * factor);
    };
    const move = (share) => {
      const [min, max] = view(),
        by = (max - min) * share;
      show(min + by, max + by);
    };
    const all = () => show(low, high),
      group = element("span", bar, "", "group");
    for (const [label, name, act] of [
      ["+", "zoom in", () => zoom(0.5)],
      ["\u2212", "zoom out", () => zoom(2)],
      ["\u2190", "earlier", () => move(-0.5)],
      ["\u2192", "later", () => move(0.5)],
      ["All", "show all", all],
    ]) {
      const button = element("button", group, label);
      button.type = "button";
      button.setAttribute("aria-label", name);
      button.addEventListener("click", act);
    }
    box.tabIndex = 0;
    box.addEventListener("keydown", (event) => {
      const act = {
        "+": () => zoom(0.5),
        "=": () => zoom(0.5),
        "-": () => zoom(2),
        0: all,
        ArrowLeft: () => move(-0.2),
        ArrowRight: () => move(0.2),
      }[event.key];
      if (act && event.target === box) {
        event.preventDefault();
        act();
      }
    });
    for (const one of plots)
      one.over.addEventListener(
        "wheel",
        (event) => {
          if (!event.ctrlKey && !event.metaKey) return;
          event.preventDefault();
          zoom(
            Math.exp((event.deltaY || event.deltaX) / 400),
            one.posToVal(event.clientX - one.over.getBoundingClientRect().left, "x"),
          );
        },
        { passive: false },
      );
    new ResizeObserver(() =>
      plots.forEach((one) => {
        const width = Math.max(200, box.clientWidth);
        if (width !== one.width) one.setSize({ width, height: one.height });
      }),
    ).observe(box);
  }

  function lines(box, spec) {
    const bar = element("div", box, "", "bar"),
      xs = spec.at;
    const plots = spec.panes.map((pane, k) => {
      if (pane.title) element("p", box, pane.title, "pane");
      const write = written[pane.unit];
      const series = [
        {
          label: k ? "" : "time",
          value: (u, x, i, at) => (at === null || at === undefined ? "" : stamp(spec.times[at])),
        },
        ...spec.names.map((label, i) => ({
          label,
          stroke: inked("--c" + (i % 6)),
          width: i ? 1.3 : 2,
          points: { show: false },
          fill: pane.fill && i === 0 ? inked("--under") : undefined,
          value: (u, v) => (v === null || v === undefined ? "" : write(v, 2)),
        })),
      ];
      return plot(box, spec, xs, pane, series, [xs, ...pane.values]);
    });
    zooming(box, bar, plots, xs);
  }

  const shown = (worth) =>
    worth === null ? "--invalid" : worth > 0 ? "--bull" : worth < 0 ? "--bear" : "--neutral";

  function price(box, spec) {
    const [opens, highs, lows, closes] = spec.ohlc,
      last = closes.length - 1,
      xs = closes.map((_, i) => i);
    const most = Math.max(0, ...spec.answers.map(([, worth]) => Math.abs(worth)));
    const strength = (worth) => (worth ? Math.abs(worth) / most : 1);
    const answer = (i) => spec.answers[spec.verdicts.charCodeAt(i) - 97];
    const bar = element("div", box, "", "bar"),
      readout = element("div", box, "", "readout");
    const view = (u) => [Math.max(0, Math.floor(u.scales.x.min)), Math.min(last, Math.ceil(u.scales.x.max))];
    const apart = (u) => u.bbox.width / Math.max(1, u.scales.x.max - u.scales.x.min) / devicePixelRatio;

    function inside(u, drawing) {
      const { ctx, bbox } = u,
        unit = devicePixelRatio;
      ctx.save();
      ctx.beginPath();
      ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
      ctx.clip();
      drawing(
        ctx,
        bbox,
        unit,
        (i) => u.valToPos(i, "x", true),
        (v) => u.valToPos(v, "y", true),
      );
      ctx.restore();
    }

    const bands = (u) =>
      inside(u, (ctx, bbox, unit, across) => {
        const [first, end] = view(u);
        for (let i = first; i <= end;) {
          let stop = i;
          while (stop < end && spec.verdicts[stop + 1] === spec.verdicts[i]) stop++;
          const said = answer(i);
          if (said && said[1] !== 0) {
            ctx.globalAlpha = 0.2 * strength(said[1]);
            ctx.fillStyle = colour(shown(said[1]));
            ctx.fillRect(across(i - 0.5), bbox.top, across(stop + 0.5) - across(i - 0.5), bbox.height);
          }
          i = stop + 1;
        }
      });

    const candles = (u) =>
      inside(u, (ctx, bbox, unit, across, upwards) => {
        const [first, end] = view(u),
          half = apart(u) * unit * 0.3;
        ctx.lineWidth = unit;
        for (let i = first; i <= end; i++) {
          const x = across(i),
            top = upwards(Math.max(opens[i], closes[i])),
            foot = upwards(Math.min(opens[i], closes[i]));
          ctx.strokeStyle = ctx.fillStyle = colour(closes[i] >= opens[i] ? "--ink" : "--muted");
          ctx.beginPath();
          ctx.moveTo(x, upwards(highs[i]));
          ctx.lineTo(x, upwards(lows[i]));
          ctx.stroke();
          ctx.fillRect(x - half, top, 2 * half, Math.max(unit, foot - top));
        }
      });

    const trades = (u) =>
      inside(u, (ctx, bbox, unit, across, upwards) => {
        const [first, end] = view(u),
          line = (...places) => {
            ctx.beginPath();
            places.forEach(([x, y], k) => (k ? ctx.lineTo(x, y) : ctx.moveTo(x, y)));
          };
        ctx.lineWidth = unit;
        ctx.setLineDash([2 * unit, 3 * unit]);
        ctx.strokeStyle = ctx.fillStyle = colour("--muted");
        ctx.font = 12 * unit + "px system-ui, sans-serif";
        ctx.textAlign = "left";
        ctx.textBaseline = "top";
        for (const [begin, stop, name] of spec.stretches) {
          const x = across(begin - 0.5),
            label = name.split(",")[0];
          line([x, bbox.top], [x, bbox.top + bbox.height]);
          ctx.stroke();
          if (ctx.measureText(label).width + 8 * unit < across(stop) - x)
            ctx.fillText(label, x + 4 * unit, bbox.top + 4 * unit);
        }
        const size =
          (apart(u) * (last + 1)) / Math.max(1, spec.trades.length) < 4 && end - first > last / 4 ? 3 : 5;
        for (const [opened, closed, entry, exit, side, result] of spec.trades) {
          if (closed < first || opened > end) continue;
          const x = across(opened),
            y = upwards(entry),
            v = across(closed),
            w = upwards(exit),
            s = size * unit;
          ctx.strokeStyle = ctx.fillStyle = colour(result > 0 ? "--bull" : "--bear");
          ctx.lineWidth = 1.5 * unit;
          ctx.setLineDash([4 * unit, 3 * unit]);
          line([x, y], [v, w]);
          ctx.stroke();
          ctx.setLineDash([]);
          line([x, y], [x - s, y + side * 2 * s], [x + s, y + side * 2 * s]);
          ctx.fill();
          line([v - s, w - s], [v + s, w + s]);
          ctx.stroke();
          line([v - s, w + s], [v + s, w - s]);
          ctx.stroke();
        }
      });

    function words(i) {
      const [open, high, low, close] = spec.ohlc.map((list) => plain(list[i]));
      const verdict = answer(i),
        sure = spec.confidence && spec.confidence[i];
      const trade = spec.trades.find((one) => one[0] <= i && i <= one[1]);
      const stretch = spec.stretches.find((one) => one[0] <= i && i <= one[1]);
      return (
        stamp(spec.times[i]) +
        "   open " +
        open +
        ", high " +
        high +
        ", low " +
        low +
        ", close " +
        close +
        (verdict ? "   " + verdict[0] + (sure !== null ? ", confidence " + percent(sure) : "") : "") +
        (trade
          ? "   in a " + (trade[4] > 0 ? "long" : "short") + " trade that came to " + trade[5].toFixed(2)
          : "") +
        (stretch ? "   " + stretch[2] : "")
      );
    }

    function told(u) {
      const [first, end] = [Math.ceil(u.scales.x.min), Math.floor(u.scales.x.max)],
        at = u.cursor.idx;
      readout.textContent =
        u.cursor.left >= 0 && at !== null && at !== undefined
          ? words(at)
          : stamp(spec.times[clamp(first, 0, last)]) +
            " to " +
            stamp(spec.times[clamp(end, 0, last)]) +
            ". Drag over a stretch, press + and \u2212, or turn the wheel with Ctrl, to zoom.";
    }

    const hidden = { paths: () => null, points: { show: false } };
    const linear = uPlot.paths.linear();
    const series = [
      {},
      hidden,
      hidden,
      hidden,
      {
        stroke: inked("--ink"),
        width: 1.2,
        points: { show: false },
        paths: (u, ...rest) => (apart(u) < CANDLE ? linear(u, ...rest) : null),
      },
    ];
    const pane = { unit: "number", height: 360, title: "" };
    const made = plot(box, spec, xs, pane, series, [xs, ...spec.ohlc], {
      drawClear: [bands],
      draw: [
        (u) => {
          if (apart(u) >= CANDLE) candles(u);
        },
        trades,
      ],
      setCursor: [told],
      setScale: [told],
    });
    zooming(box, bar, [made], xs);
    for (const [name, worth] of spec.answers) {
      const key = element("span", bar, "", "key"),
        patch = element("i", key);
      patch.style.background = "var(" + shown(worth) + ")";
      patch.style.opacity = strength(worth);
      element("span", key, name);
    }
    told(made);
  }

  document.querySelectorAll("[data-chart]").forEach((box) => {
    const spec = specs[Number(box.dataset.chart)];
    (spec.kind === "price" ? price : lines)(box, spec);
  });
  const again = () => drawn.forEach((one) => one.redraw(false));
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
  let folded = []; // what is opened for the paper alone
  const fit = (width) =>
    drawn.forEach((one) =>
      one.setSize({ width: width || Math.max(200, one.root.parentElement.clientWidth), height: one.height }),
    );
  window.addEventListener("beforeprint", () => {
    root.dataset.paper = "1";
    folded = [...document.querySelectorAll("details:not([open])")];
    folded.forEach((one) => {
      one.open = true;
    });
    fit(PAPER);
  });
  window.addEventListener("afterprint", () => {
    delete root.dataset.paper;
    folded.forEach((one) => {
      one.open = false;
    });
    fit();
  });
  root.dataset.charts = String(specs.length);
})();
