// A picture on a canvas, with what a method kept of it.

const RAMP = [[68, 1, 84], [65, 68, 135], [42, 120, 142], [34, 168, 132], [122, 209, 81], [253, 231, 37]];

/** The colour of a score from 0 to 1. */
function rampColour(share, alpha) {
  const place = Math.max(0, Math.min(0.9999, share)) * (RAMP.length - 1);
  const [a, b] = [RAMP[Math.floor(place)], RAMP[Math.floor(place) + 1]];
  return `rgba(${a.map((one, i) => Math.round(one + (b[i] - one) * (place % 1))).join()},${alpha})`;
}

const hue = (number) => (number * 137.508 + 205) % 360;

/** Frames that tokens look at, in rows that fit a width. */
function layoutOf(picture, wide) {
  const used = [...new Set(picture.cells.map((cell) => cell[4]))].sort((a, b) => a - b);
  const [width, height] = picture.size;
  const columns = used.length <= 4 || wide / used.length >= 64 ? used.length : Math.ceil(used.length / 2);
  const gap = used.length > 1 ? 3 : 0;
  const scale = (wide - gap * (columns - 1)) / (columns * width);
  const lines = Math.ceil(used.length / columns);
  const place = new Map(used.map((frame, i) => [frame, [(i % columns) * (width * scale + gap), Math.floor(i / columns) * (height * scale + gap)]]));
  return { scale, place, high: lines * height * scale + gap * (lines - 1) };
}

/** What is told of a picture by one method: tokens kept at a stage, stand-ins, scores. */
function toldOf(picture, shown, stage) {
  const total = picture.cells.length;
  const last = shown.kept.length - 1;
  const number = stage === "end" ? last : Math.min(stage, last);
  const kept = number < 0 ? null : bitsOf(shown.kept[number]);
  const chosen = number < 0 ? Array.from({ length: total }, (_, i) => i) : chosenOf(shown.kept[number], total);
  const standins = number === last ? standinsOf(shown.into) : null;
  return { total, number, kept: kept || (() => 1), chosen, standins, scores: scoresOf(shown.scores) };
}

/** Draw `picture` `wide` pixels wide, as a method sees it after a stage. */
function paint(canvas, image, picture, shown, { stage, mode, wide, at = -1 }) {
  const layout = layoutOf(picture, wide);
  const dense = Math.min(3, window.devicePixelRatio || 1);
  canvas.width = Math.round(wide * dense);
  canvas.height = Math.round(layout.high * dense);
  const pen = canvas.getContext("2d");
  pen.scale(dense, dense);
  pen.fillStyle = colour("--sunk");
  pen.fillRect(0, 0, wide, layout.high);
  const [width, height] = picture.size;
  for (const [frame, [x, y]] of layout.place) pen.drawImage(image, frame * width, 0, width, height, x, y, width * layout.scale, height * layout.scale);
  if (!shown) return layout;

  const told = toldOf(picture, shown, stage);
  const box = (index) => {
    const [left, top, right, bottom, frame] = picture.cells[index];
    const [x, y] = layout.place.get(frame);
    // On whole dots of the screen, so that no line of picture shows between two cells.
    const [l, t, r, b] = [x + left * layout.scale, y + top * layout.scale, x + right * layout.scale, y + bottom * layout.scale].map((one) => Math.round(one * dense) / dense);
    return [l, t, r - l, b - t];
  };
  if (mode === "scores") {
    if (told.scores) told.scores.shares.forEach((share, index) => {
      if (share === null) return;
      pen.fillStyle = rampColour(share, 0.78);
      pen.fillRect(...box(index));
    });
    outline(pen, told.chosen.map(box), "rgba(255,255,255,0.95)", "rgba(0,0,0,0.55)", told.chosen.length < told.total);
  } else {
    const members = new Map();
    if (told.standins) told.standins.forEach((into, index) => members.set(into, [...(members.get(into) || []), index]));
    const order = new Map([...members.keys()].filter((into) => into >= 0).sort((a, b) => a - b).map((into, i) => [into, i]));
    pen.fillStyle = colour("--veil");
    for (let index = 0; index < told.total; index++) {
      const into = told.standins ? told.standins[index] : -1;
      if (into >= 0 && members.get(into).length > 1) continue;
      if (!told.kept(index)) pen.fillRect(...box(index));
    }
    for (const [into, list] of members) {
      if (into < 0 || list.length < 2) continue;
      for (const index of list) {
        pen.fillStyle = `hsla(${hue(order.get(into))},70%,60%,0.36)`;
        pen.fillRect(...box(index));
      }
      border(pen, picture, list, box, `hsl(${hue(order.get(into))},80%,72%)`);
      const [x, y, w, h] = box(into);
      pen.beginPath();
      pen.arc(x + w / 2, y + h / 2, Math.max(1.5, Math.min(5, w * 0.2, h * 0.2)), 0, 2 * Math.PI);
      pen.fillStyle = "#fff";
      pen.strokeStyle = "rgba(0,0,0,0.7)";
      pen.lineWidth = 1;
      pen.fill();
      pen.stroke();
    }
  }
  if (at >= 0) {
    const family = told.standins && told.standins[at] >= 0 ? [...told.standins].flatMap((into, i) => (into === told.standins[at] ? [i] : [])) : [at];
    outline(pen, family.map(box), "#ffffff", "#000000", true);
    pen.lineWidth = 3;
    pen.strokeStyle = colour("--accent");
    pen.strokeRect(...box(at));
  }
  return layout;
}

/** A line around a group of cells: where a side has no other cell of the group beyond it. */
function border(pen, picture, list, box, style) {
  const sides = new Map();
  for (const index of list) {
    const [left, top, right, bottom, frame] = picture.cells[index];
    const [x, y, w, h] = box(index);
    for (const [name, line] of [
      [`${frame}:${left},${top}-${right},${top}`, [x, y, x + w, y]], [`${frame}:${left},${bottom}-${right},${bottom}`, [x, y + h, x + w, y + h]],
      [`${frame}:${left},${top}-${left},${bottom}`, [x, y, x, y + h]], [`${frame}:${right},${top}-${right},${bottom}`, [x + w, y, x + w, y + h]],
    ]) if (!sides.delete(name)) sides.set(name, line);
  }
  pen.beginPath();
  for (const [ax, ay, bx, by] of sides.values()) {
    pen.moveTo(ax, ay);
    pen.lineTo(bx, by);
  }
  pen.strokeStyle = style;
  pen.lineWidth = 1.25;
  pen.stroke();
}

/** Lines around cells, inside their edges; a darker one below so that it shows on any picture. */
function outline(pen, boxes, light, dark, wanted, width = 1.25) {
  if (!wanted) return;
  for (const [style, extra] of [[dark, 1.25], [light, 0]]) {
    if (!style) continue;
    pen.strokeStyle = style;
    pen.lineWidth = width + extra;
    for (const [x, y, w, h] of boxes) pen.strokeRect(x + 0.75, y + 0.75, w - 1.5, h - 1.5);
  }
}

const loaded = new Map();
/** Picture number `number`, read. */
function imageOf(number) {
  if (!loaded.has(number)) {
    const image = new Image();
    image.src = DATA.images[number];
    loaded.set(number, image.decode().then(() => image));
  }
  return loaded.get(number);
}
