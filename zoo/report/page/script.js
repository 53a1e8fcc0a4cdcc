// The page's behaviour: theme, table, chart, pictures, viewer. Plain script, so that it runs from file:// as well.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const { columns, lines } = data.table;
  const { inputs, outputs } = data.pictures;
  const byId = (id) => document.getElementById(id);
  const unique = (values) => [...new Set(values)];
  const column = (metric) => columns.find((one) => one.metric === metric);
  const nameOf = (method) => data.names[method] || method;

  // An element with attributes and children; text is never read as markup.
  function make(tag, attributes = {}, ...children) {
    const svg = ["svg", "g", "path", "line", "text", "polyline", "title"].includes(tag);
    const element = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (value !== undefined) element.setAttribute(name, value);
    }
    element.append(...children);
    return element;
  }

  function fill(select, options, chosen) {
    select.replaceChildren(...options.map(([value, text]) => make("option", { value }, text)));
    if (chosen !== undefined) select.value = chosen;
    // A choice among one is no choice.
    if (options.length < 2) select.closest("label").hidden = true;
  }

  // --- theme -------------------------------------------------------------------------------------------------------

  const theme = byId("theme");
  function showTheme(name) {
    document.documentElement.dataset.theme = name;
    theme.setAttribute("aria-pressed", String(name === "dark"));
    theme.textContent = name === "dark" ? "Light" : "Dark";
  }
  showTheme(matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  theme.addEventListener("click", () => showTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));

  // --- table -------------------------------------------------------------------------------------------------------

  const body = byId("results").tBodies[0];
  const rows = [...body.rows];
  const MANY = 40;
  const sizes = unique(lines.map((line) => line.size));
  const strengths = unique(lines.filter((line) => !line.baseline).map((line) => line.strength)).sort((a, b) => b - a);
  fill(byId("filter-size"), [["", "all"], ...sizes.map((size) => [size, size])].slice(sizes.length > 1 ? 0 : 1));
  fill(
    byId("filter-strength"),
    [["", "all"], ...strengths.map((value) => [value, value])].slice(strengths.length > 1 ? 0 : 1),
    // A long sweep begins with the strength that the methods' authors use.
    lines.length > MANY ? strengths[0] : undefined,
  );
  if (!lines.some((line) => line.baseline)) byId("filter-baselines").closest("label").hidden = true;

  function visibleLines() {
    return rows.filter((row) => !row.hidden).map((row) => lines[row.dataset.line]);
  }

  function filterTable() {
    const words = byId("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
    const size = byId("filter-size").value;
    const strength = byId("filter-strength").value;
    for (const row of rows) {
      const line = lines[row.dataset.line];
      const text = `${line.method} ${line.name} ${line.precision}`.toLowerCase();
      row.hidden = !(
        words.every((word) => text.includes(word)) &&
        (!size || line.size === Number(size)) &&
        // A baseline has no strength of its own: it is shown once.
        (line.baseline ? line.strength === strengths[0] : !strength || line.strength === Number(strength)) &&
        (!line.baseline || byId("filter-baselines").checked)
      );
    }
    byId("shown").textContent = `${visibleLines().length} lines`;
    drawChart();
  }
  byId("filters").addEventListener("input", filterTable);
  byId("filters").addEventListener("submit", (event) => event.preventDefault());

  function valueFor(line, key) {
    return key in line.values ? line.values[key] : line[key];
  }

  function sortTable(heading) {
    const { key, direction } = heading.dataset;
    const first = direction === "higher" ? "descending" : "ascending";
    const second = first === "ascending" ? "descending" : "ascending";
    const order = heading.getAttribute("aria-sort") === first ? second : first;
    for (const other of heading.parentElement.cells) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", order);
    const sign = order === "ascending" ? 1 : -1;
    rows.sort((one, other) => {
      const [a, b] = [valueFor(lines[one.dataset.line], key), valueFor(lines[other.dataset.line], key)];
      // Lines without a value stand last in both orders.
      if (a === null || b === null) return (a === null) - (b === null);
      return sign * (typeof a === "number" ? a - b : String(a).localeCompare(String(b)));
    });
    body.append(...rows);
    drawChart();
  }
  for (const heading of byId("results").tHead.rows[0].cells) {
    heading.firstElementChild.addEventListener("click", () => sortTable(heading));
  }

  // --- chart -------------------------------------------------------------------------------------------------------

  const plot = byId("plot");
  const reading = byId("reading");
  const hint = reading.textContent;
  const looks = new Map(unique(lines.map((line) => line.method)).map((method, index) => [method, index]));
  // Shapes within 6 pixels of (0, 0); with the colours they tell methods apart in grey as well.
  const SHAPES = [
    "M5 0A5 5 0 1 1-5 0A5 5 0 1 1 5 0Z", "M-4.5-4.5H4.5V4.5H-4.5Z", "M0-6L5.5 4.5H-5.5Z", "M0-6L6 0L0 6L-6 0Z",
    "M0 6L5.5-4.5H-5.5Z", "M-5-2H-2V-5H2V-2H5V2H2V5H-2V2H-5Z", "M-6 0L4.5-5.5V5.5Z", "M6 0L-4.5-5.5V5.5Z",
  ];
  const DASHES = ["", "7 3", "2 3", "8 3 2 3", "4 2"];
  const named = columns.map((one) => [one.metric, one.title + (one.unit ? ` (${one.unit})` : "")]);
  const quality = columns.filter((one) => one.kind === "quality");
  fill(byId("chart-y"), named, (quality[0] || columns[0] || {}).metric);
  fill(
    byId("chart-x"),
    [["method", "method"], ...(sizes.length > 1 ? [["size", "size (pixels)"]] : []),
      ...(strengths.length > 1 ? [["strength", "strength"]] : []), ...named],
    "method",
  );

  function ticks(low, high, log) {
    const found = [];
    if (log) {
      for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) {
        for (const factor of high / low > 300 ? [1] : [1, 2, 5]) {
          const value = factor * 10 ** power;
          if (value >= low && value <= high) found.push(value);
        }
      }
      return found;
    }
    const rough = (high - low) / 6;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = power * ([1, 2, 5, 10].find((factor) => factor * power >= rough) || 10);
    for (let value = Math.ceil(low / step) * step; value <= high + step * 1e-9; value += step) found.push(value);
    return found;
  }

  function scale(values, from, to, log) {
    let [low, high] = [Math.min(...values), Math.max(...values)];
    if (low === high) [low, high] = log ? [low / 2, high * 2] : [low - Math.abs(low) / 2 - 0.5, high + Math.abs(high) / 2 + 0.5];
    const pad = 0.06;
    if (log) {
      const ratio = (high / low) ** pad;
      [low, high] = [low / ratio, high * ratio];
    } else {
      const more = (high - low) * pad;
      [low, high] = [low - more, high + more];
    }
    const bend = log ? Math.log : (value) => value;
    const place = (value) => from + ((bend(value) - bend(low)) / (bend(high) - bend(low))) * (to - from);
    return { place, ticks: ticks(low, high, log) };
  }

  const plain = (value) => {
    const size = Math.abs(value);
    if (value === 0 || (size >= 1e-3 && size < 1e5)) return String(Number(value.toPrecision(4)));
    return value.toExponential(1).replace("e+", "e");
  };

  function drawChart() {
    const [x, y] = [byId("chart-x").value, byId("chart-y").value];
    const wanted = visibleLines().filter((line) => line.values[y] !== null && line.values[y] !== undefined);
    let points = wanted
      .map((line) => ({ line, up: line.values[y], across: x === "method" ? line.name : valueFor(line, x) }))
      .filter((point) => point.across !== null && point.across !== undefined)
      .filter((point) => !((x === "size" || x === "strength") && point.line.baseline));
    const log = byId("chart-log").checked;
    const hidden = points.length;
    if (log) points = points.filter((point) => point.up > 0 && (x === "method" || point.across > 0));
    plot.replaceChildren();
    reading.textContent = hint;
    if (!points.length) {
      plot.append(make("text", { x: 430, y: 200, "text-anchor": "middle" }, "No line has these numbers."));
      return;
    }
    if (hidden > points.length) reading.textContent = `${hidden - points.length} values of zero or less are not shown. ${hint}`;
    if (x === "method") drawDots(points, y, log);
    else drawPoints(points, x, y, log);
  }

  function mark(point, left, top) {
    const index = looks.get(point.line.method);
    const colour = point.line.baseline ? "var(--soft)" : `var(--mark-${(index % 7) + 1})`;
    const exact = describe(point);
    const element = make(
      "path",
      {
        class: "mark", d: SHAPES[index % SHAPES.length], transform: `translate(${left} ${top})`, tabindex: 0,
        role: "img", "aria-label": exact, stroke: colour, fill: point.line.baseline ? "var(--ground)" : colour,
        "data-method": point.line.method, "data-up": point.up, "data-across": point.across,
      },
      make("title", {}, exact),
    );
    for (const event of ["pointerenter", "focus"]) element.addEventListener(event, () => (reading.textContent = exact));
    return element;
  }

  function describe({ line, up, across }) {
    const [x, y] = [byId("chart-x").value, byId("chart-y").value];
    const where = [sizes.length > 1 ? `size ${line.size}` : "", strengths.length > 1 && !line.baseline ? `strength ${line.strength}` : ""];
    const parts = [line.name, ...where.filter(Boolean), `${column(y).title} ${up}${column(y).unit && ` ${column(y).unit}`}`];
    const bounds = line.intervals[y];
    if (bounds) parts.push(`interval ${bounds[0]} to ${bounds[1]}`);
    if (column(x)) parts.push(`${column(x).title} ${across}${column(x).unit && ` ${column(x).unit}`}`);
    return parts.join(", ");
  }

  // One row per line of the table, its value on a common scale.
  function drawDots(points, y, log) {
    const room = Math.min(300, 20 + 7.2 * Math.max(...points.map((point) => label(point.line).length)));
    const height = 46 + 24 * points.length;
    plot.setAttribute("viewBox", `0 0 860 ${height}`);
    const shown = points.flatMap((point) => [point.up, ...(boundsOf(point, y, log) || [])]);
    const across = scale(shown, room + 12, 770, log);
    for (const value of across.ticks) {
      const left = across.place(value);
      plot.append(make("line", { class: "grid", x1: left, x2: left, y1: 8, y2: height - 40 }));
      plot.append(make("text", { class: "soft", x: left, y: height - 24, "text-anchor": "middle" }, plain(value)));
    }
    plot.append(axisTitle(y, (room + 782) / 2, height - 6));
    points.forEach((point, index) => {
      const top = 22 + 24 * index;
      plot.append(make("text", { x: room, y: top + 4, "text-anchor": "end" }, label(point.line)));
      plot.append(make("line", { class: "grid", x1: room + 12, x2: 770, y1: top, y2: top, "stroke-dasharray": "1 4" }));
      const bounds = boundsOf(point, y, log);
      if (bounds) {
        const [left, right] = bounds.map(across.place);
        plot.append(make("line", { class: "axis interval", x1: left, x2: right, y1: top, y2: top }));
      }
      plot.append(mark(point, across.place(point.up), top));
      plot.append(make("text", { class: "soft", x: 782, y: top + 4 }, plain(point.up)));
    });
  }

  function boundsOf({ line }, metric, log) {
    const bounds = line.intervals[metric];
    return bounds && !(log && bounds[0] <= 0) ? bounds : null;
  }

  function label(line) {
    return line.name + (sizes.length > 1 ? ` ${line.size}` : "") + (strengths.length > 1 && !line.baseline ? ` at ${line.strength}` : "");
  }

  function axisTitle(metric, left, top, turned = false) {
    const one = column(metric);
    const words = one
      ? `${one.title}${one.unit ? ` (${one.unit})` : ""}, ${one.direction} is better`
      : metric === "size" ? "size (pixels)" : metric;
    const place = turned ? { transform: `translate(${left} ${top}) rotate(-90)` } : { x: left, y: top };
    return make("text", { "text-anchor": "middle", ...place }, words);
  }

  // A mark per line; lines of one method are joined in order of size and strength.
  function drawPoints(points, x, y, log) {
    const methods = unique(points.map((point) => point.line.method));
    const height = 430 + 20 * Math.ceil(methods.length / 2);
    plot.setAttribute("viewBox", `0 0 860 ${height}`);
    const across = scale(points.map((point) => point.across), 80, 840, log);
    const up = scale(points.map((point) => point.up), 370, 12, log);
    for (const value of x === "size" || x === "strength" ? unique(points.map((point) => point.across)) : across.ticks) {
      const left = across.place(value);
      plot.append(make("line", { class: "grid", x1: left, x2: left, y1: 12, y2: 370 }));
      plot.append(make("text", { class: "soft", x: left, y: 388, "text-anchor": "middle" }, plain(value)));
    }
    for (const value of up.ticks) {
      const top = up.place(value);
      plot.append(make("line", { class: "grid", x1: 80, x2: 840, y1: top, y2: top }));
      plot.append(make("text", { class: "soft", x: 74, y: top + 4, "text-anchor": "end" }, plain(value)));
    }
    plot.append(make("path", { class: "axis", d: "M80 12V370H840" }));
    plot.append(axisTitle(x, 460, 410), axisTitle(y, 18, 190, true));
    methods.forEach((method, number) => {
      const own = points.filter((point) => point.line.method === method);
      own.sort((a, b) => a.line.size - b.line.size || a.line.strength - b.line.strength);
      const index = looks.get(method);
      const colour = own[0].line.baseline ? "var(--soft)" : `var(--mark-${(index % 7) + 1})`;
      const dashes = DASHES[index % DASHES.length];
      if (own.length > 1 && !own[0].line.baseline) {
        const path = own.map((point) => `${across.place(point.across)},${up.place(point.up)}`).join(" ");
        plot.append(make("polyline", { points: path, stroke: colour, "stroke-dasharray": dashes || undefined }));
      }
      plot.append(...own.map((point) => mark(point, across.place(point.across), up.place(point.up))));
      const [left, top] = [90 + 380 * (number % 2), 434 + 20 * Math.floor(number / 2)];
      plot.append(make("path", {
        d: SHAPES[index % SHAPES.length], transform: `translate(${left} ${top})`, stroke: colour, "stroke-width": 2,
        fill: own[0].line.baseline ? "var(--ground)" : colour,
      }));
      plot.append(make("text", { x: left + 14, y: top + 4 }, nameOf(method)));
    });
  }
  for (const id of ["chart-x", "chart-y"]) {
    byId(id).addEventListener("change", () => {
      if (byId("chart-x").value === "size") byId("chart-log").checked = true;
      drawChart();
    });
  }
  byId("chart-log").addEventListener("change", drawChart);

  // --- pictures ----------------------------------------------------------------------------------------------------

  const methods = unique(outputs.map((one) => one.method));
  const choices = ["content", "style", "size", "strength", "seed"];
  // A sanity row has neither strength nor seed of its own: its picture stands beside all of them.
  const sanity = new Set(lines.filter((line) => line.baseline).map((line) => line.method));
  const own = outputs.filter((one) => !sanity.has(one.method));
  for (const choice of choices) {
    const values = unique((own.length ? own : outputs).map((one) => one[choice]));
    const options = values.map((value) => [value, value]);
    if ((choice === "content" || choice === "style") && values.length > 1) options.unshift(["", "all"]);
    fill(byId(`picture-${choice}`), options, choice === "strength" ? Math.max(...values) : undefined);
  }
  byId("picture-methods").append(
    ...methods.map((method) => {
      const box = make("input", { type: "checkbox", value: method });
      box.checked = true;
      return make("label", { class: "check", title: method }, box, ` ${nameOf(method)}`);
    }),
  );
  byId("picture-methods").hidden = methods.length < 2;

  const key = (...parts) => JSON.stringify(parts);
  const inputAt = new Map(inputs.map((one) => [key(one.role, one.name, one.size), one]));
  const placeOf = (method, ...rest) => key(method, ...rest.slice(0, sanity.has(method) ? 3 : 5));
  const outputAt = new Map(
    outputs.map((one) => [placeOf(one.method, one.content, one.style, one.size, one.strength, one.seed), one]),
  );
  // What the viewer steps through: every result that the gallery shows.
  let sequence = [];

  function captionOf(one) {
    if (one.role) return `${one.role}: ${one.name}`;
    return nameOf(one.method);
  }

  function altOf(one) {
    if (one.role) return `The ${one.role} ${one.name}`;
    return `${one.content} in the style ${one.style}, by ${nameOf(one.method)}`;
  }

  function cellOf(one, context) {
    if (!one || one.reason) {
      const reason = one ? one.reason : "This method was not measured on this pair.";
      return make("div", { class: "cell" }, make("div", { class: "empty" }, reason), make("p", {}, one ? captionOf(one) : ""));
    }
    const shown = 180;
    const image = make("img", {
      src: one.thumbnail, loading: "lazy", decoding: "async", alt: altOf(one), width: shown,
      height: Math.round((shown * one.height) / one.width),
    });
    const button = make("button", { type: "button", "aria-label": `${altOf(one)}: view in full` }, image);
    button.addEventListener("click", () => openViewer(one, context));
    const changed = one.changed ? [make("strong", { title: one.changed }, "changed")] : [];
    return make("div", { class: "cell" }, button, make("p", {}, captionOf(one), ...changed.flatMap((mark) => [" ", mark])));
  }

  function drawGallery() {
    const chosen = Object.fromEntries(choices.map((name) => [name, byId(`picture-${name}`).value]));
    const [size, strength, seed] = [chosen.size, chosen.strength, chosen.seed].map(Number);
    const wanted = [...byId("picture-methods").querySelectorAll("input:checked")].map((box) => box.value);
    const pairs = data.pictures.pairs.filter(
      ([content, style]) => (!chosen.content || content === chosen.content) && (!chosen.style || style === chosen.style),
    );
    sequence = [];
    const drawn = pairs.map(([content, style]) => {
      const context = {
        content: inputAt.get(key("content", content, size)), style: inputAt.get(key("style", style, size)), pair: [content, style],
      };
      const results = wanted.map((method) => outputAt.get(placeOf(method, content, style, size, strength, seed)));
      context.results = results.filter((one) => one && !one.reason);
      sequence.push(...context.results.map((one) => ({ one, context })));
      return make(
        "div", { class: "row" }, cellOf(context.content, context), cellOf(context.style, context),
        ...results.map((one) => cellOf(one, context)),
      );
    });
    byId("gallery").replaceChildren(...drawn);
    byId("picture-count").textContent = `${sequence.length} pictures of ${pairs.length} pairs`;
  }
  byId("pictures").addEventListener("change", drawGallery);

  // --- viewer: two pictures of one pair under a slider ---------------------------------------------------------------

  const viewer = byId("viewer");
  const compare = byId("viewer-compare");
  const slider = byId("viewer-slider");
  const LARGEST_ZOOM = 2;
  let open = null;

  function candidates(context) {
    return [context.content, context.style, ...context.results].filter((one) => one && !one.reason);
  }

  function openViewer(one, context) {
    open = { one, context };
    const found = candidates(context);
    const options = found.map((candidate, index) => [index, captionOf(candidate)]);
    for (const side of ["left", "right"]) {
      const select = byId(`viewer-${side}`);
      select.closest("label").hidden = false;
      fill(select, options);
      select.closest("label").hidden = false;
    }
    byId("viewer-right").value = found.indexOf(one);
    // Beside the content itself stands the first result.
    const other = one === context.content && context.results.length ? context.results[0] : context.content || one;
    byId("viewer-left").value = Math.max(0, found.indexOf(other));
    byId("viewer-title").textContent = `${context.pair[0]} × ${context.pair[1]}`;
    slider.value = 50;
    if (!viewer.open) viewer.showModal();
    showPair();
    slider.focus();
  }

  function showPair() {
    const found = candidates(open.context);
    const [left, right] = ["left", "right"].map((side) => found[byId(`viewer-${side}`).value]);
    for (const [side, one] of [["left", left], ["right", right]]) {
      const image = byId(`viewer-image-${side}`);
      image.src = one.source;
      image.alt = altOf(one);
    }
    fit(right);
    slide();
    showScores(left, right);
    const place = sequence.findIndex((entry) => entry.one === open.one);
    byId("viewer-previous").disabled = place <= 0;
    byId("viewer-next").disabled = place < 0 || place >= sequence.length - 1;
  }

  // The whole picture inside the window, a small one at most twice as large; or pixel by pixel.
  function fit(one) {
    const room = [byId("viewer-stage").clientWidth || 0.9 * innerWidth, 0.62 * innerHeight];
    const fitted = Math.min(room[0] / one.width, room[1] / one.height, LARGEST_ZOOM);
    const zoom = byId("viewer-pixels").checked ? 1 : fitted;
    compare.style.width = `${Math.round(one.width * zoom)}px`;
    compare.style.height = `${Math.round(one.height * zoom)}px`;
  }

  function slide() {
    const share = Number(slider.value);
    byId("viewer-image-left").style.clipPath = `inset(0 ${100 - share}% 0 0)`;
    byId("viewer-line").style.left = `${share}%`;
    slider.setAttribute("aria-valuetext", `${share} per cent of the left picture`);
  }

  // The hash of a picture's file as the rows hold it, and whether the file is still that one.
  function hashOf(picture) {
    const said = [make("code", {}, picture.sha256 || "not kept")];
    if (picture.given) said.push(" (of the file that was given)");
    if (picture.changed) said.push(" ", make("strong", {}, picture.changed));
    return make("td", { class: "hash" }, ...said);
  }

  // Every number that the rows hold of these two pictures, with all its digits.
  function showScores(left, right) {
    const shown = [left, right].filter((one, index, both) => one.scores && both.indexOf(one) === index);
    const metrics = unique(shown.flatMap((one) => Object.keys(one.scores)));
    const head = make("tr", {}, make("th", {}, ""), ...shown.map((one) => make("th", { scope: "col" }, captionOf(one))));
    const rest = metrics.map((metric) => {
      const one = column(metric);
      const title = one ? `${one.title}${one.unit ? ` (${one.unit})` : ""}` : metric;
      const cells = shown.map((picture) => make("td", {}, metric in picture.scores ? String(picture.scores[metric]) : "–"));
      return make("tr", {}, make("th", { scope: "row" }, title), ...cells);
    });
    if (shown.some((one) => one.sha256)) {
      rest.unshift(make("tr", {}, make("th", { scope: "row" }, "sha256 of the file"), ...shown.map(hashOf)));
    }
    byId("viewer-scores").replaceChildren(...(shown.length ? [head, ...rest] : []));
  }

  function step(by) {
    const place = sequence.findIndex((entry) => entry.one === open.one);
    const next = sequence[place + by];
    if (place >= 0 && next) openViewer(next.one, next.context);
  }

  slider.addEventListener("input", slide);
  for (const id of ["viewer-left", "viewer-right", "viewer-pixels"]) byId(id).addEventListener("change", showPair);
  byId("viewer-right").addEventListener("change", () => {
    open.one = candidates(open.context)[byId("viewer-right").value];
    showPair();
  });
  byId("viewer-previous").addEventListener("click", () => step(-1));
  byId("viewer-next").addEventListener("click", () => step(1));
  byId("viewer-close").addEventListener("click", () => viewer.close());
  // The arrows move what has the focus (the slider, a choice); with Page Up and Page Down the pictures change anywhere.
  viewer.addEventListener("keydown", (event) => {
    if (event.key === "PageDown" || event.key === "PageUp") {
      event.preventDefault();
      step(event.key === "PageDown" ? 1 : -1);
    }
  });
  compare.addEventListener("pointermove", (event) => {
    if (event.pointerType !== "mouse" || event.buttons === 1) {
      const box = compare.getBoundingClientRect();
      slider.value = Math.max(0, Math.min(100, (100 * (event.clientX - box.left)) / box.width));
      slide();
    }
  });
  compare.addEventListener("dragstart", (event) => event.preventDefault());

  filterTable();
  if (outputs.length) drawGallery();
})();
