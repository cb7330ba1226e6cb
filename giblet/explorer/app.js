const PANELS = {
  movie: "what was shown",
  intact: "decoded from the whole brain",
  lesioned: "decoded after the lesion",
  difference: "lesioned − intact, grey: none",
};
const HELP = [
  ["←", "→", "TR"], ["space", "play"], ["1", "–", "9", "presets"], ["0", "clear"],
  ["B", "brain"], ["M", "mode"],
];
const RED = [226, 42, 42];
const CLEARED = { preset: "", regions: [], units: [0, 0] };

/** An element with properties (or attributes, or `on...` listeners) and children. */
function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

const button = (label, onclick, properties = {}) =>
  h("button", { type: "button", onclick, ...properties }, ...[label].flat());
const press = (element, on) => element.setAttribute("aria-pressed", String(Boolean(on)));
const number = (value, digits = 2) => {
  const written = (value ?? NaN).toFixed(digits).replace("NaN", "–").replace("-", "−");
  return Number(written.slice(1)) === 0 ? written.replace("−", "") : written; // no −0.00
};
const quiet = (text) => h("span", { className: "quiet" }, text);
const bitmap = (bytes, type) => createImageBitmap(new Blob([bytes], { type }));

const inflate = (bytes) => new Response(
  new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"))).arrayBuffer();

/** Whether `of`, some controls, has the values of `state`. */
const fits = (of, state) =>
  Boolean(of) && Object.keys(of).every((k) => JSON.stringify(of[k]) === JSON.stringify(state[k]));

/** One of several options as a row of buttons. */
function choice(label, options, choose) {
  const buttons = options.map((option) => button(option, () => choose(option)));
  const element = h("div", { className: "choice", role: "group", ariaLabel: label }, ...buttons);
  const show = (chosen) => buttons.forEach((b, i) => press(b, options[i] === chosen));
  return { element, show };
}

function slider(label, max, step, choose) {
  const oninput = (event) => choose(Number(event.target.value));
  const element = h("input", { type: "range", min: 0, max, step, oninput, ariaLabel: label });
  return { element, show: (value) => { element.value = value; } };
}

/** Two sliders on one track: [first, last). */
function range(label, max, choose) {
  const change = (moved) => {
    const [first, last] = handles.map((handle) => Number(handle.element.value));
    if (first <= last) choose([first, last]);
    else choose(moved === 0 ? [first, first] : [last, last]);
  };
  const names = [`first of ${label}`, `end of ${label}`];
  const handles = names.map((name, i) => slider(name, max, 1, () => change(i)));
  const element = h("div", { className: "range" }, ...handles.map((handle) => handle.element));
  const show = (values) => {
    handles.forEach((handle, i) => handle.show(values[i]));
    element.style.setProperty("--from", values[0] / max);
    element.style.setProperty("--to", values[1] / max);
    handles[0].element.style.zIndex = values[0] > max / 2 ? 2 : 1; // reachable where both are
  };
  return { element, show };
}

/** Four views of the brain, the lesion in red; a click toggles the region under it. */
function brain(facts, toggle) {
  const { views, height, regions } = facts;
  const canvases = views.map((view) => h("canvas", { role: "img", ariaLabel: view }));
  const name = h("span", { className: "quiet", ariaLive: "polite" }, "click a region");
  const figures = views.map((view, i) =>
    h("figure", {}, canvases[i], h("figcaption", { className: "quiet" }, view)));
  const element = h("div", { className: "views" }, ...figures);
  let shade = null;
  let regionOf = null;
  let hurt = null; // a bit for each pixel
  let hovered = -1;

  const width = () => shade.length / height / views.length;
  const regionAt = (event, i) => {
    if (!regionOf) return -1;
    const box = canvases[i].getBoundingClientRect();
    const x = Math.floor(((event.clientX - box.left) / box.width) * width());
    const y = Math.floor(((event.clientY - box.top) / box.height) * height);
    const inside = x >= 0 && x < width() && y >= 0 && y < height;
    return inside ? regionOf[(y * views.length + i) * width() + x] : -1;
  };
  const draw = () => canvases.forEach((canvas, i) => {
    if (!regionOf) return;
    const picture = new ImageData(width(), height);
    for (let to = 0; to < width() * height; to++) {
      const from = (Math.floor(to / width()) * views.length + i) * width() + (to % width());
      const grey = shade[from];
      const isHurt = hurt[from >> 3] & (128 >> (from & 7));
      const glow = hovered >= 0 && regionOf[from] === hovered ? 0.4 : 0;
      for (let c = 0; c < 3; c++) {
        const colour = isHurt ? RED[c] * (0.4 + grey / 320) : grey;
        picture.data[4 * to + c] = colour + (255 - colour) * glow;
      }
      picture.data[4 * to + 3] = grey ? 255 : 0;
    }
    canvas.width = width();
    canvas.height = height;
    canvas.getContext("2d").putImageData(picture, 0, 0);
  });
  const hover = (region) => {
    if (region === hovered) return;
    hovered = region;
    name.textContent = region < 0 ? "click a region" : regions[region];
    for (const canvas of canvases) {
      canvas.title = region < 0 ? "" : regions[region];
      canvas.style.cursor = region < 0 ? "default" : "pointer";
    }
    draw();
  };
  canvases.forEach((canvas, i) => {
    canvas.addEventListener("mousemove", (event) => hover(regionAt(event, i)));
    canvas.addEventListener("mouseleave", () => hover(-1));
    canvas.addEventListener("click", (event) => {
      const region = regionAt(event, i);
      if (region >= 0) toggle(regions[region]);
    });
  });
  const show = ({ buffer, byteOffset, byteLength }) => {
    hurt = new Uint8Array(buffer, byteOffset, byteLength);
    draw();
  };
  Promise.all([facts.shade, facts.region_of_pixel].map(inflate)).then(([shades, found]) => {
    shade = new Uint8Array(shades);
    regionOf = new Int16Array(found);
    draw();
  });
  return { element, name, show };
}

/** The clip: frames in the panels and one of three sounds, from the present TR on. */
function player(model, panels, state, report) {
  const audio = {};
  for (const name of ["movie", "intact", "lesioned"]) {
    audio[name] = h("audio", { preload: "auto" });
    audio[name].dataset.sound = name;
  }
  let wanted = false;
  let run = 0; // what is awaited by an earlier run is dropped
  let heard = "lesioned";

  const clips = () => [model.get("clip_before"), model.get("clip_after")];
  const isReady = () => clips().every((clip) => fits(clip.of, state()));
  const silence = () => Object.values(audio).forEach((sound) => sound.pause());
  const load = () => clips().forEach((clip) => {
    for (const [name, bytes] of Object.entries(clip.sounds ?? {})) {
      if (audio[name].bytes === bytes) continue;
      URL.revokeObjectURL(audio[name].src);
      audio[name].bytes = bytes;
      audio[name].src = URL.createObjectURL(new Blob([bytes], { type: "audio/mpeg" }));
    }
  });
  const choose = (name) => {
    heard = name;
    for (const [other, sound] of Object.entries(audio)) sound.muted = other !== name;
  };
  const stop = () => {
    wanted = false;
    interrupt();
  };
  const interrupt = () => {
    run++;
    silence();
    Object.values(panels).forEach((panel) => panel.still());
    report(wanted ? "waits" : isReady() ? "ready" : "making", 0);
  };
  const start = async () => {
    wanted = true;
    interrupt();
    if (!isReady()) return;
    const mine = run;
    const [{ fps, frame, pitch }] = clips();
    const strips = Object.assign({}, ...clips().map((clip) => clip.strips));
    const films = await Promise.all(Object.entries(strips).map(
      async ([name, bytes]) => [name, await bitmap(bytes, "image/jpeg")]));
    load();
    choose(heard);
    const sounds = Object.values(audio).filter((sound) => sound.src);
    sounds.forEach((sound) => { sound.currentTime = 0; });
    await Promise.all(sounds.map((sound) => sound.play().catch(() => {})));
    if (mine !== run) { if (!wanted) silence(); return; }
    const began = performance.now();
    const seconds = films.length ? films[0][1].height / pitch / fps : sounds[0].duration;
    const tick = () => {
      if (mine !== run) return;
      const now = (performance.now() - began) / 1000;
      if (now >= seconds) { stop(); return; }
      const top = Math.floor(now * fps) * pitch;
      for (const [name, film] of films) panels[name].frame(film, top, frame);
      report("plays", now / seconds);
      requestAnimationFrame(tick);
    };
    tick();
  };
  const arrived = () => {
    if (isReady()) load();
    if (wanted && isReady()) start();
    else if (!wanted) report(isReady() ? "ready" : "making", 0);
  };
  const changed = () => {
    if (isReady()) return;
    if (wanted) interrupt();
    else report("making", 0);
  };
  const toggle = () => (wanted ? stop() : start());
  return { audio, toggle, stop, arrived, changed, choose };
}

/** A picture with its name: the still of the TR, or a frame of the clip. */
function panel(model, name) {
  const canvas = h("canvas", { role: "img", ariaLabel: name });
  const caption = h("figcaption", {}, h("b", {}, name), quiet(PANELS[name]));
  const element = h("figure", {}, caption, canvas);
  element.dataset.panel = name;
  let drawn = 0;
  const paint = (picture, top, width, height) => {
    if (canvas.width !== width || canvas.height !== height) {
      canvas.width = width;
      canvas.height = height;
    }
    canvas.getContext("2d").drawImage(picture, 0, top, width, height, 0, 0, width, height);
  };
  const still = async () => {
    const mine = ++drawn;
    const picture = await bitmap(model.get(name), "image/png");
    if (mine === drawn) paint(picture, 0, picture.width, picture.height);
  };
  const frame = (film, top, [height, width]) => { drawn++; paint(film, top, width, height); };
  return { element, still, frame };
}

/** Cost of the lesion in each modality as bars on one scale, over the range of random lesions. */
function bars(effects, n_permute) {
  const { rows } = effects;
  const ends = rows.flatMap((row) => [row.lost, row.low, row.high]).filter((x) => x !== null);
  const low = Math.min(-0.02, ...ends);
  const high = Math.max(0.1, ...ends);
  const place = (x) => `${(100 * (x - low)) / (high - low)}%`;
  const bar = (kind, from, to) => {
    const element = h("i", { className: kind });
    element.style.left = place(Math.min(from, to));
    element.style.width = `${(100 * Math.abs(to - from)) / (high - low)}%`;
    return element;
  };
  const heads = ["", "intact", "", "lost", "p"].map(quiet);
  heads[2].append(h("i", { className: "key lost" }), "lost to this lesion ",
    h("i", { className: "key null" }), `95 % of ${n_permute} random ones as large`);
  const lines = rows.flatMap((row) => {
    const track = h("div", { className: "track" });
    if (row.low !== null) track.append(bar("null", row.low, row.high));
    if (row.lost !== null) track.append(bar("lost", 0, row.lost));
    track.append(bar("zero", 0, 0));
    const name = h("span", {}, h("b", {}, row.name), " ", quiet(row.score));
    const cell = (text) => h("span", { className: "n" }, text);
    const numbers = [cell(number(row.lost)), cell(number(row.p, 3))];
    return [name, cell(number(row.intact)), track, ...numbers];
  });
  return h("div", { className: "bars" }, ...heads, ...lines);
}

function table(sentences) {
  return h("dl", {}, ...sentences.rows.flatMap(({ name, sentence, cosine }) => [
    h("dt", {}, name),
    h("dd", {}, `${sentence} `, quiet(`(${number(cosine)})`)),
  ]));
}

const section = (name, ...children) => h("section", { className: name }, ...children);
const row = (label, control, readout = "") =>
  h("div", { className: "row" }, quiet(label), control, readout);

function render({ model, el }) {
  const facts = model.get("facts");
  const { has } = facts;
  const state = () => model.get("state");
  const set = (changes) => {
    model.set("state", { ...state(), ...changes });
    model.save_changes();
  };
  const step = (by) =>
    set({ tr: Math.min(Math.max(state().tr + by, 0), facts.tr_index.length - 1) });
  const other = (options, value) => options[(options.indexOf(value) + 1) % options.length];
  const clear = () => set(CLEARED);
  const take = (preset) => set({ ...CLEARED, preset: state().preset === preset ? "" : preset });
  const toggle = (region) => {
    const chosen = new Set(state().regions);
    if (!chosen.delete(region)) chosen.add(region);
    set({ regions: facts.regions.filter((name) => chosen.has(name)) });
  };

  // what is shown
  const summary = h("span", { className: "summary", ariaLive: "polite" });
  const badge = facts.label ? [h("span", { className: "badge" }, facts.label)] : [];
  const help = h("p", { className: "help quiet" }, ...HELP.map((keys) =>
    h("span", {}, ...keys.slice(0, -1).map((key) => (key === "–" ? key : h("kbd", {}, key))),
      ` ${keys.at(-1)}`)));
  const head = section("head", h("h3", {}, "Lesion explorer"), ...badge, summary);
  if (facts.failures.length) {
    head.append(h("div", { className: "failures" }, ...facts.failures.map((x) => h("p", {}, x))));
  }
  const intact = button([h("kbd", {}, "0"), "intact"], clear, { className: "intact" });
  const presets = facts.presets.map((name, i) =>
    button([...(i < 9 ? [h("kbd", {}, String(i + 1))] : []), name], () => take(name)));
  const panels = has.video
    ? Object.fromEntries(Object.keys(PANELS).map((name) => [name, panel(model, name)])) : {};

  // the clip
  const play = button("▶", () => film.toggle(), { className: "play", ariaLabel: "play" });
  const progress = h("i");
  const report = (what, done) => {
    const isOn = what === "plays" || what === "waits";
    play.textContent = { plays: "■", waits: "…" }[what] ?? "▶";
    play.ariaLabel = isOn ? "stop" : "play";
    play.title = what === "making" || what === "waits" ? "the clip is being made" : "";
    play.dataset.clip = what;
    progress.style.width = `${100 * done}%`;
  };
  const film = player(model, panels, state, report);
  const sound = choice("sound", ["movie", "intact", "lesioned"], (name) => {
    film.choose(name);
    sound.show(name);
  });

  // the controls
  const tr = slider("held-out TR", facts.tr_index.length - 1, 1, (value) => set({ tr: value }));
  const trTold = h("span", { className: "readout" });
  const source = choice("brain", facts.sources, (value) => set({ source: value }));
  const mode = choice("lesion", facts.modes, (value) => set({ mode: value }));
  const fill = choice("fill", facts.fills, (value) => set({ fill: value }));
  const strength = slider("strength", 1, 0.05, (value) => set({ strength: value }));
  const strengthTold = h("span", { className: "readout" });
  const units = range("units", facts.n_units, (value) => set({ units: value }));
  const unitsTold = h("span", { className: "readout" });
  const chips = facts.regions.map((name) => button(name, () => toggle(name)));
  const cortex = facts.views ? brain(facts, toggle) : null;
  const later = "follows in a moment …";
  const effects = section("effects", h("h4", {}, "Cost of the lesion"), quiet(later));
  const words = section("words", h("h4", {}, "Nearest sentence"), quiet(later));

  const transport = h("div", { className: "transport" });
  if (has.video || has.audio) transport.append(play);
  const elapsed = h("div", { className: "elapsed" }, progress);
  const time = h("div", { className: "time" }, tr.element, elapsed);
  transport.append(time, trTold);
  if (has.audio) transport.append(h("span", { className: "sound" }, "sound ", sound.element));
  transport.append(...Object.values(film.audio));
  const stage = section("stage", h("div", { className: "panels" },
    ...Object.values(panels).map((one) => one.element)), transport);
  const side = section("side",
    ...(cortex ? [h("h4", {}, "Brain ", cortex.name), cortex.element] : []),
    h("h4", {}, "Regions"), h("div", { className: "chips", role: "group" }, ...chips),
    h("h4", {}, "Lesion"),
    h("div", { className: "rows" },
      row("brain", source.element), row("mode", mode.element), row("fill", fill.element),
      row("strength", strength.element, strengthTold), row("units", units.element, unitsTold)));
  const app = h("div", { className: "app" }, head,
    section("presets", intact, ...presets), stage, side, effects);
  if (has.text) app.append(words);
  app.append(help);
  const root = h("div", { className: "giblet", tabIndex: 0, ariaLabel: "lesion explorer" }, app);
  root.dataset.lmSuppressShortcuts = "true"; // keys are the app's, not JupyterLab's
  el.append(root);

  const showState = () => {
    const now = state();
    tr.show(now.tr);
    const index = facts.tr_index[now.tr];
    const seconds = Math.floor(index * facts.seconds);
    const clock = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
    trTold.textContent = `TR ${index} · ${clock}`;
    trTold.title = `held-out TR ${now.tr + 1} of ${facts.tr_index.length}`;
    source.show(now.source);
    mode.show(now.mode);
    fill.show(now.fill);
    strength.show(now.strength);
    strengthTold.textContent = number(now.strength);
    units.show(now.units);
    const [first, last] = now.units;
    unitsTold.textContent = last > first ? `${first}–${last - 1}` : "none";
    chips.forEach((chip, i) => press(chip, now.regions.includes(facts.regions[i])));
    presets.forEach((one, i) => press(one, facts.presets[i] === now.preset));
    press(intact, !now.preset && !now.regions.length && last === first);
    film.changed();
    showAge();
  };
  const showAge = () => {
    for (const [element, name] of [[effects, "effects"], [words, "sentences"]]) {
      element.dataset.stale = String(!fits(model.get(name).of, state()));
    }
  };
  const showEffects = () => {
    if (model.get("effects").rows) {
      effects.replaceChildren(effects.firstChild, bars(model.get("effects"), facts.n_permute));
    }
    showAge();
  };
  const showWords = () => {
    if (model.get("sentences").rows) {
      words.replaceChildren(words.firstChild, table(model.get("sentences")));
    }
    showAge();
  };
  const showSummary = () => { summary.textContent = model.get("summary"); };

  const keys = {
    ArrowLeft: () => step(-1), ArrowRight: () => step(1), " ": film.toggle,
    0: clear, Escape: clear,
    b: () => set({ source: other(facts.sources, state().source) }),
    m: () => set({ mode: other(facts.modes, state().mode) }),
  };
  facts.presets.slice(0, 9).forEach((name, i) => { keys[i + 1] = () => take(name); });
  root.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    event.stopPropagation();
    const isOwn = (event.target.type === "range" && event.key.startsWith("Arrow"))
      || (event.target.type === "button" && event.key === " ");
    const act = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (isOwn || !act) return;
    event.preventDefault();
    act();
  });
  root.addEventListener("mousedown", (event) => { // a click keeps the keys with the app
    if (event.target.closest("input, .words, .failures")) return;
    event.preventDefault();
    root.focus({ preventScroll: true });
  });

  const listeners = {
    "change:state": showState,
    "change:summary": showSummary,
    "change:effects": showEffects,
    "change:sentences": showWords,
    "change:clip_before": film.arrived,
    "change:clip_after": film.arrived,
  };
  for (const name of Object.keys(panels)) listeners[`change:${name}`] = panels[name].still;
  if (cortex) listeners["change:hurt"] = () => cortex.show(model.get("hurt"));
  for (const [name, listener] of Object.entries(listeners)) model.on(name, listener);
  sound.show("lesioned");
  for (const name of Object.keys(panels)) panels[name].still();
  if (cortex) cortex.show(model.get("hurt"));
  showState();
  showSummary();
  showEffects();
  showWords();
  film.arrived();
  return () => {
    film.stop();
    for (const [name, listener] of Object.entries(listeners)) model.off(name, listener);
  };
}

export default { render };
