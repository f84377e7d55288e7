"use strict";
// The explorer: a state (what is looked from, layer, head, direction), which the address keeps, and one function that draws it.
(() => {
  const get = (id) => document.getElementById(id);
  const data = JSON.parse(get("record").textContent);
  const [height, width] = data.size, [rows, columns] = data.grid, [cellHeight, cellWidth] = data.cell;
  const picture = get("picture"), heat = get("heat"), marker = get("marker");
  const MEAN = -1;
  const state = { kind: null, point: [0, 0], detection: 0, layers: { encoder: data.encoder.layers - 1, decoder: data.decoder.layers - 1 }, head: MEAN,
    direction: "from" };
  let drawn = null; // the map on the picture: {weights, grid, largest}

  // Maps -----------------------------------------------------------------------------------------------------------------------------------------------

  const unpacked = new Map();
  const unpack = (part, layer) => {
    const id = `${part}-${layer}`;
    if (!unpacked.has(id)) unpacked.set(id, inflate(get(id).textContent));
    return unpacked.get(id);
  };

  async function inflate(text) {
    const characters = atob(text.trim()), bytes = new Uint8Array(characters.length);
    for (let i = 0; i < bytes.length; i++) bytes[i] = characters.charCodeAt(i);
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"))).arrayBuffer();
  }

  const partOf = (s) => (s.kind === "detection" ? "decoder" : "encoder");
  const layerNow = () => state.layers[partOf(state)];
  const cellOf = (point) => [Math.floor(point[1] / cellHeight), Math.floor(point[0] / cellWidth)];

  // The map of a state, from the unpacked layer: a row of the matrix, or a column of it for who looks here.
  function mapOf(s, buffer) {
    const part = data[partOf(s)], places = rows * columns, heads = s.head === MEAN ? [...Array(part.heads).keys()] : [s.head];
    const largest = new Float32Array(buffer, 0, part.heads * part.rows), steps = new Uint8Array(buffer, largest.byteLength);
    const [row, column] = cellOf(s.point), inverse = s.kind === "point" && s.direction === "to";
    const unit = 1 / (part.levels * heads.length);
    if (inverse) {
      const weights = new Float32Array(part.rows), place = row * columns + column;
      for (const head of heads) for (let i = 0; i < part.rows; i++) {
        const at = head * part.rows + i;
        weights[i] += steps[at * places + place] * largest[at] * unit;
      }
      return { weights, grid: data.sources };
    }
    const source = s.kind === "detection" ? s.detection : Math.floor(row / data.pooling) * data.sources[1] + Math.floor(column / data.pooling);
    const weights = new Float32Array(places);
    for (const head of heads) {
      const at = head * part.rows + source, scale = largest[at] * unit;
      for (let i = 0; i < places; i++) weights[i] += steps[at * places + i] * scale;
    }
    return { weights, grid: data.grid };
  }

  // Colours: inferno, which gets steadily lighter (and so is read alike by colour-blind people and in grey); dark where little is seen ------------------

  const ANCHORS = ["000004", "0b0724", "210c4a", "3d0965", "57106e", "71196e", "8a226a", "a32c61", "bc3754", "d24644", "e45a31", "f1731d", "f98e09", "fcac11",
    "f9cb35", "f2ea69", "fcffa4"].map((hex) => [0, 2, 4].map((i) => parseInt(hex.slice(i, i + 2), 16)));
  const COLOURS = Array.from({ length: 256 }, (_, i) => {
    const place = (i / 255) * (ANCHORS.length - 1), low = Math.min(Math.floor(place), ANCHORS.length - 2), share = place - low;
    return ANCHORS[low].map((c, k) => Math.round(c + (ANCHORS[low + 1][k] - c) * share));
  });
  const VEIL = 0.5, FULL = 0.86; // opacity over the picture at weight 0 and at the largest

  function paint(canvas, map, opacity) {
    const [h, w] = map.grid, most = Math.max(...map.weights) || 1;
    canvas.width = w;
    canvas.height = h;
    const pixels = new ImageData(w, h);
    map.weights.forEach((weight, i) => {
      const share = weight / most;
      pixels.data.set([...COLOURS[Math.round(share * 255)], Math.round(255 * opacity(share))], 4 * i);
    });
    canvas.getContext("2d").putImageData(pixels, 0, 0);
    return most;
  }
  const overPicture = (share) => VEIL + (FULL - VEIL) * share, solid = () => 1;
  const percent = (weight) => `${(100 * weight).toPrecision(weight >= 0.0995 ? 3 : 2)} %`;

  // Drawing --------------------------------------------------------------------------------------------------------------------------------------------

  let latest = 0;
  async function draw() {
    const ticket = ++latest, looking = state.kind !== null;
    showControls();
    remember();
    if (!looking) {
      drawn = null;
      heat.hidden = marker.hidden = true;
      get("legend").hidden = true;
      describe();
      return;
    }
    const buffer = await unpack(partOf(state), layerNow());
    if (ticket !== latest) return;
    drawn = mapOf(state, buffer);
    drawn.largest = paint(heat, drawn, overPicture);
    const size = drawn.grid === data.grid ? 1 : data.pooling;
    Object.assign(heat.style, share(0, 0, drawn.grid[1] * cellWidth * size, drawn.grid[0] * cellHeight * size));
    heat.hidden = !get("shown").checked;
    placeMarker();
    describe();
    get("legend").hidden = false;
    get("heads").querySelectorAll(".thumb").forEach((thumb) => {
      paint(thumb.querySelector("canvas"), mapOf({ ...state, head: Number(thumb.querySelector("input").value) }, buffer), solid);
    });
    if (get("all").open) await drawMatrix(ticket);
  }

  async function drawMatrix(ticket) {
    const part = data[partOf(state)], matrix = get("matrix");
    if (matrix.dataset.part !== partOf(state)) buildMatrix(part);
    matrix.dataset.part = partOf(state);
    for (let layer = 0; layer < part.layers; layer++) {
      const buffer = await unpack(partOf(state), layer);
      if (ticket !== latest) return;
      for (let head = MEAN; head < part.heads; head++) {
        const button = get(`map-${layer}-${head}`);
        button.setAttribute("aria-pressed", layer === layerNow() && head === state.head);
        paint(button.firstChild, mapOf({ ...state, head }, buffer), solid);
      }
    }
  }

  const share = (x, y, w, h) => ({ left: `${(100 * x) / width}%`, top: `${(100 * y) / height}%`, width: `${(100 * w) / width}%`, height: `${(100 * h) / height}%` });

  function placeMarker() {
    marker.hidden = state.kind !== "point";
    if (marker.hidden) return;
    const size = state.direction === "from" ? data.pooling : 1, [row, column] = cellOf(state.point).map((i) => i - (i % size));
    const x = column * cellWidth, y = row * cellHeight;
    Object.assign(marker.style, share(x, y, Math.min(size * cellWidth, width - x), Math.min(size * cellHeight, height - y)));
  }

  function describe() {
    const found = data.detections[state.detection], [x, y] = state.point, part = data[partOf(state)];
    const head = state.head === MEAN ? "" : `, head=${state.head}`;
    if (!drawn) {
      get("what").textContent = "Click a point of the picture";
      get("details").textContent = "to see where the encoder looks from there; click a detection to see where its query looks.";
      get("call").textContent = "";
      return;
    }
    const sum = drawn.weights.reduce((a, b) => a + b, 0) || 1;
    const spread = Math.exp(-drawn.weights.reduce((a, b) => a + (b > 0 ? (b / sum) * Math.log(b / sum) : 0), 0));
    const about = `${partOf(state)} layer ${layerNow()}, ${state.head === MEAN ? `mean of ${part.heads} heads` : `head ${state.head}`}; `
      + `spread over about ${Math.round(spread)} of ${drawn.weights.length} places`;
    if (state.kind === "detection") get("what").textContent = `Where the query of ${found.name} ${found.score.toFixed(2)} looks`;
    else get("what").textContent = state.direction === "from" ? `Where the point (${x}, ${y}) looks` : `Who looks at the point (${x}, ${y})`;
    get("details").textContent = about;
    get("call").textContent = state.kind === "detection" ? `record.decoder_of(${state.detection}, layer=${layerNow()}${head})  # query ${found.query}`
      : `record.encoder_${state.direction}((${x}, ${y}), layer=${layerNow()}${head})`;
    get("largest").textContent = percent(drawn.largest);
  }

  function showControls() {
    const part = data[partOf(state)];
    state.head = Math.min(state.head, part.heads - 1);
    picture.classList.toggle("looking", state.kind !== null);
    get("explorer").classList.toggle("smooth", get("smooth").checked);
    build(partOf(state));
    for (const [name, value] of [["layer", layerNow()], ["head", state.head], ["direction", state.direction]]) {
      const input = document.querySelector(`input[name="${name}"][value="${value}"]`);
      if (input) input.checked = true;
    }
    get("heads").hidden = get("all").hidden = state.kind === null;
    get("direction").disabled = state.kind === "detection";
    showDetections();
  }

  // Controls that depend on the part: made anew when the part changes -----------------------------------------------------------------------------------

  let built = null;
  function build(name) {
    if (built === name) return;
    built = name;
    const part = data[name];
    const layers = [...Array(part.layers).keys()].map((i) => choice("layer", i, element("span", {}, String(i)), `layer ${i} of the ${name}`));
    get("layers").replaceChildren(element("legend", {}, `Layer of the ${name}`), ...layers);
    const heads = [MEAN, ...Array(part.heads).keys()].map((i) => {
      const canvas = element("canvas", { width: columns, height: rows });
      canvas.style.aspectRatio = `${width} / ${height}`;
      const label = choice("head", i, canvas, i === MEAN ? "mean of all heads" : `head ${i}`);
      label.classList.add("thumb");
      label.append(i === MEAN ? "mean" : String(i));
      return label;
    });
    const strip = element("div", {});
    strip.style.setProperty("--heads", heads.length);
    strip.append(...heads);
    get("heads").replaceChildren(element("legend", {}, "Head"), strip);
  }

  function buildMatrix(part) {
    const matrix = get("matrix");
    matrix.style.gridTemplateColumns = `auto repeat(${part.heads + 1}, minmax(0, 1fr))`;
    const cells = [element("span", {}, "")];
    for (let head = MEAN; head < part.heads; head++) cells.push(element("span", {}, head === MEAN ? "mean" : String(head)));
    for (let layer = 0; layer < part.layers; layer++) {
      cells.push(element("span", {}, String(layer)));
      for (let head = MEAN; head < part.heads; head++) {
        const name = `layer ${layer}, ${head === MEAN ? "mean of all heads" : `head ${head}`}`;
        const button = element("button", { type: "button", id: `map-${layer}-${head}`, "aria-label": name });
        const canvas = element("canvas", { width: columns, height: rows });
        canvas.style.aspectRatio = `${width} / ${height}`;
        button.append(canvas);
        button.addEventListener("click", () => change({ head, ...atLayer(layer) }));
        cells.push(button);
      }
    }
    matrix.replaceChildren(...cells);
  }

  function element(tag, attributes, text) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    if (text !== undefined) made.textContent = text;
    return made;
  }

  function choice(name, value, shown, spoken) {
    const label = element("label", {}), input = element("input", { type: "radio", name, value, "aria-label": spoken });
    label.append(input, shown);
    return label;
  }

  // Detections -----------------------------------------------------------------------------------------------------------------------------------------

  const detections = data.detections.map((found, index) => {
    const box = element("div", { class: "box" }), [x1, y1, x2, y2] = found.box;
    Object.assign(box.style, share(x1, y1, x2 - x1, y2 - y1));
    const tag = element("button", { class: "tag", type: "button", tabindex: -1, "aria-hidden": "true" }, found.name);
    tag.append(element("i", {}, found.score.toFixed(2)));
    const item = element("li", {}), button = element("button", { type: "button", "aria-pressed": "false" });
    button.append(element("i", {}), element("span", {}, found.name), element("em", {}, found.score.toFixed(2)));
    item.append(button);
    for (const part of [box, tag, item]) part.style.setProperty("--own", found.colour);
    tag.style.setProperty("--ink-on", found.ink);
    const near = (on) => () => [box, tag].forEach((part) => part.classList.toggle("near", on));
    for (const part of [tag, button]) {
      part.addEventListener("click", () => change({ kind: "detection", detection: index }));
      part.addEventListener("pointerenter", near(true));
      part.addEventListener("pointerleave", near(false));
    }
    button.addEventListener("focus", near(true));
    button.addEventListener("blur", near(false));
    get("boxes").append(box, tag);
    get("list").append(item);
    return { box, tag, item, button, found, visible: false };
  });

  function showDetections() {
    const bound = Number(get("threshold").value);
    detections.forEach((d, index) => {
      const active = state.kind === "detection" && state.detection === index;
      d.visible = active || d.found.score >= bound;
      d.box.hidden = d.tag.hidden = d.item.hidden = !d.visible;
      d.button.setAttribute("aria-pressed", active);
      d.box.classList.toggle("active", active);
      d.tag.classList.toggle("active", active);
    });
    get("bound").textContent = bound.toFixed(2);
    get("count").textContent = `${detections.filter((d) => d.visible).length} of ${detections.length}`;
    placeTags();
  }

  // Each name above its box, else inside, else below, where it covers no other name; the best detections choose first.
  function placeTags() {
    const [w, h] = [picture.clientWidth, picture.clientHeight], taken = [];
    for (const d of detections) {
      if (!d.visible) continue;
      const [x1, y1, x2, y2] = d.found.box.map((side, i) => (i % 2 ? (side * h) / height : (side * w) / width));
      const tw = d.tag.offsetWidth, th = d.tag.offsetHeight;
      const wanted = [[x1, y1 - th - 2], [x1 + 3, y1 + 3], [x2 - tw, y1 - th - 2], [x1, y2 + 2], [x2 - tw - 3, y1 + 3], [x1 + 3, y2 - th - 3], [x2 - tw, y2 + 2]];
      const inside = wanted.map(([x, y]) => [Math.max(0, Math.min(x, w - tw)), Math.max(0, Math.min(y, h - th))]);
      const free = ([x, y]) => taken.every((t) => x >= t[2] || x + tw <= t[0] || y >= t[3] || y + th <= t[1]);
      const [x, y] = inside.find(free) || inside[0];
      taken.push([x, y, x + tw, y + th]);
      Object.assign(d.tag.style, { left: `${x}px`, top: `${y}px` });
    }
  }

  // A visible box whose border is within a few pixels of the pointer, the smallest first.
  function boxNear(point) {
    const reach = (5 * width) / picture.clientWidth;
    const onEdge = ([x1, y1, x2, y2]) => {
      const [x, y] = point, within = x >= x1 - reach && x <= x2 + reach && y >= y1 - reach && y <= y2 + reach;
      return within && Math.min(Math.abs(x - x1), Math.abs(x - x2), Math.abs(y - y1), Math.abs(y - y2)) <= reach;
    };
    const area = (d) => (d.found.box[2] - d.found.box[0]) * (d.found.box[3] - d.found.box[1]);
    return detections.filter((d) => d.visible && onEdge(d.found.box)).sort((a, b) => area(a) - area(b))[0];
  }

  // State and address ----------------------------------------------------------------------------------------------------------------------------------

  let pending = Promise.resolve();
  function change(values) {
    Object.assign(state, values);
    pending = draw().catch((error) => {
      get("trouble").hidden = false;
      get("trouble").textContent = `The maps can't be shown: ${error.message}. The page may be damaged, or the browser older than 2023.`;
    });
    return pending;
  }

  const atLayer = (layer) => ({ layers: { ...state.layers, [partOf(state)]: layer } });
  const clamp = (value, most) => Math.max(0, Math.min(value, most));
  const lookFrom = (x, y) => change({ kind: "point", point: [clamp(Math.round(x), width - 1), clamp(Math.round(y), height - 1)] });

  function address() {
    if (state.kind === null) return "";
    const from = state.kind === "point" ? `point=${state.point.join(",")}&direction=${state.direction}` : `detection=${state.detection}`;
    return `#${from}&layer=${layerNow()}&head=${state.head === MEAN ? "mean" : state.head}`;
  }

  let timer = 0;
  function remember() {
    clearTimeout(timer);
    timer = setTimeout(() => {
      if (location.hash !== address()) history.replaceState(null, "", address() || location.pathname + location.search);
    }, 120); // browsers refuse many changes of the address in a short time
  }

  function recall() {
    const said = new URLSearchParams(location.hash.slice(1)), whole = (name) => (/^\d+$/.test(said.get(name) || "") ? Number(said.get(name)) : null);
    const values = { kind: null, head: whole("head") ?? MEAN, direction: said.get("direction") === "to" ? "to" : "from" };
    const point = /^(\d+),(\d+)$/.exec(said.get("point") || ""), detection = whole("detection");
    if (point) Object.assign(values, { kind: "point", point: [clamp(Number(point[1]), width - 1), clamp(Number(point[2]), height - 1)] });
    else if (detection !== null && detection < detections.length) Object.assign(values, { kind: "detection", detection });
    const part = partOf(values), layer = whole("layer");
    if (layer !== null) values.layers = { ...state.layers, [part]: Math.min(layer, data[part].layers - 1) };
    return change(values);
  }

  // Pointer: mouse and pen look at once and may drag; a finger taps (so that it can still scroll), and drags the marker -------------------------------------

  const toPicture = (event) => {
    const area = picture.getBoundingClientRect();
    return [((event.clientX - area.left) / area.width) * width, ((event.clientY - area.top) / area.height) * height];
  };
  let dragging = false, finger = false;

  picture.addEventListener("pointerdown", (event) => {
    finger = event.pointerType === "touch";
    if (event.button !== 0 || event.target.closest(".tag")) return;
    const onMarker = event.target === marker;
    if (finger && !onMarker) return;
    const near = finger || onMarker ? null : boxNear(toPicture(event));
    if (near) return void change({ kind: "detection", detection: detections.indexOf(near) });
    dragging = true;
    picture.setPointerCapture(event.pointerId);
    lookFrom(...toPicture(event));
  });
  picture.addEventListener("pointermove", (event) => {
    const point = toPicture(event);
    if (dragging) lookFrom(...point);
    else if (event.pointerType !== "touch") picture.classList.toggle("edge", Boolean(boxNear(point)));
    showValue(point);
  });
  for (const name of ["pointerup", "pointercancel"]) picture.addEventListener(name, () => { dragging = false; });
  picture.addEventListener("pointerleave", () => { get("pointer").textContent = ""; });
  picture.addEventListener("click", (event) => {
    if (finger && !event.target.closest(".tag") && event.target !== marker) lookFrom(...toPicture(event));
  });

  function showValue([x, y]) {
    if (!drawn || x < 0 || y < 0 || x >= width || y >= height) return;
    const size = drawn.grid === data.grid ? 1 : data.pooling;
    const [row, column] = cellOf([x, y]).map((i) => Math.floor(i / size));
    get("pointer").textContent = `here ${percent(drawn.weights[row * drawn.grid[1] + column])}`;
  }

  // Controls and keys ----------------------------------------------------------------------------------------------------------------------------------

  let byPointer = false;
  document.addEventListener("pointerdown", () => { byPointer = true; });
  document.addEventListener("keydown", () => { byPointer = false; }, true);
  document.addEventListener("change", (event) => {
    const { name, value } = event.target;
    if (name === "layer") change(atLayer(Number(value)));
    else if (name === "head") change({ head: Number(value) });
    else if (name === "direction") change({ direction: value });
    else if (event.target.type === "checkbox") change({});
    if (byPointer && event.target.type === "radio") picture.focus({ preventScroll: true }); // so that the arrow keys move the point again
  });
  get("threshold").addEventListener("input", showDetections);
  get("clear").addEventListener("click", () => change({ kind: null }));
  get("all").addEventListener("toggle", () => change({}));
  window.addEventListener("hashchange", () => { if (location.hash !== address()) recall(); });
  new ResizeObserver(placeTags).observe(picture);

  const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  function move([dx, dy]) {
    let [x, y] = state.point;
    if (state.kind === "detection") {
      const [x1, y1, x2, y2] = data.detections[state.detection].box;
      [x, y] = [(x1 + x2) / 2, (y1 + y2) / 2];
    } else if (state.kind === null) [x, y, dx, dy] = [width / 2, height / 2, 0, 0];
    const size = state.direction === "from" ? data.pooling : 1;
    const step = (value, by, cell, side) => {
      const place = clamp(Math.floor(clamp(value, side - 1) / cell) + by, Math.ceil(side / cell) - 1);
      return clamp((place + 0.5) * cell, side - 1); // the middle of the last place may be outside
    };
    lookFrom(step(x, dx, cellWidth * size, width), step(y, dy, cellHeight * size, height));
  }

  const toggle = (id) => { get(id).checked = !get(id).checked; change({}); };
  document.addEventListener("keydown", (event) => {
    const { key, target } = event, part = data[partOf(state)], inControl = target.matches("input, summary");
    if ((event.ctrlKey || event.altKey || event.metaKey) && !event.getModifierState("AltGraph")) return;
    const actions = {
      "[": () => change(atLayer(clamp(layerNow() - 1, part.layers - 1))), "]": () => change(atLayer(clamp(layerNow() + 1, part.layers - 1))),
      ",": () => change({ head: Math.max(MEAN, state.head - 1) }), ".": () => change({ head: Math.min(part.heads - 1, state.head + 1) }),
      m: () => change({ head: MEAN }), d: () => change({ direction: state.direction === "from" ? "to" : "from" }),
      h: () => toggle("shown"), s: () => toggle("smooth"), Escape: () => change({ kind: null }),
    };
    if (ARROWS[key] && !inControl) move(ARROWS[key]);
    else if (/^\d$/.test(key) && Number(key) < part.heads) change({ head: Number(key) });
    else if (actions[key]) actions[key]();
    else return;
    event.preventDefault();
  });

  // Start ----------------------------------------------------------------------------------------------------------------------------------------------

  picture.style.aspectRatio = `${width} / ${height}`;
  document.body.style.setProperty("--picture-width", `max(340px, ${(65 * width / height).toFixed(2)}vh)`); // high enough to leave the heads in sight
  get("threshold").value = data.threshold;
  const scale = get("scale").getContext("2d"), bar = new ImageData(256, 1);
  COLOURS.forEach((colour, i) => bar.data.set([...colour, 255], 4 * i));
  scale.putImageData(bar, 0, 0);

  // For the console, and for tests: the map that is shown, with the state it belongs to, once it is drawn.
  window.explorer = { current: async () => { await pending; return { ...state, layer: layerNow(), ...(drawn && { grid: drawn.grid, weights: [...drawn.weights] }) }; } };
  recall();
})();
