"use strict";

// A picture and its mask: zoom, brush, polygon, fill, boxes and clicks, undo. Knows nothing of videos.
// The mask is a Uint8Array of object ids, row after row; `changed` is called after every edit, `prompted` after a box or
// a click, for whoever knows the mask of it to `answer`.
class MaskCanvas {
  constructor(canvas, { changed, before, prompted }) {
    Object.assign(this, { canvas, changed, before, prompted });
    this.context = canvas.getContext("2d");
    this.layer = document.createElement("canvas");
    this.tool = "brush";
    this.object = 1;
    this.size = 18;
    this.tint = 0.5;
    this.shown = true;
    this.palette = [];
    this.corners = [];
    this.pointer = null;
    this.view = null;
    this.locked = false;
    this.reset();
    canvas.addEventListener("pointerdown", event => this.press(event));
    canvas.addEventListener("pointermove", event => this.move(event));
    canvas.addEventListener("pointerup", event => this.release(event));
    canvas.addEventListener("pointercancel", event => this.release(event));
    canvas.addEventListener("pointerleave", () => { this.pointer = null; this.draw(); });
    canvas.addEventListener("dblclick", () => this.closePolygon());
    canvas.addEventListener("contextmenu", event => event.preventDefault());
    canvas.addEventListener("wheel", event => this.wheel(event), { passive: false });
    new ResizeObserver(() => { if (!this.zoomed) this.view = null; this.draw(); }).observe(canvas);
  }

  reset() {
    this.picture = this.ids = null;
    this.width = this.height = 0;
    this.past = [];
    this.future = [];
    this.corners = [];
    this.stroke = this.corner = this.prompt = this.asked = null;
  }

  // Shows a picture (ImageBitmap) and its mask; a history may come with it.
  show(picture, ids, history = { past: [], future: [] }) {
    if (picture.width !== this.width || picture.height !== this.height) this.fit();
    this.picture = picture;
    this.width = this.layer.width = picture.width;
    this.height = this.layer.height = picture.height;
    this.ids = ids ?? new Uint8Array(this.width * this.height);
    this.past = history.past;
    this.future = history.future;
    this.corners = [];
    this.stroke = this.corner = this.prompt = this.asked = null;
    this.paint(0, 0, this.width, this.height);
    this.draw();
  }

  fit() { this.view = null; this.zoomed = false; this.draw(); }

  // Where the picture lies on the canvas, in CSS pixels: {scale, x, y}.
  place() {
    if (!this.view) {
      const { clientWidth, clientHeight } = this.canvas;
      const scale = Math.min((clientWidth - 24) / this.width, (clientHeight - 24) / this.height);
      this.view = { scale, x: (clientWidth - scale * this.width) / 2, y: (clientHeight - scale * this.height) / 2 };
    }
    return this.view;
  }

  draw() {
    if (this.pending) return;
    this.pending = requestAnimationFrame(() => { this.pending = 0; this.drawNow(); });
  }

  drawNow() {
    const { canvas, context } = this, ratio = window.devicePixelRatio || 1;
    const width = Math.round(canvas.clientWidth * ratio), height = Math.round(canvas.clientHeight * ratio);
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, width, height);
    if (!this.picture) return;
    const { scale, x, y } = this.place();
    context.setTransform(ratio * scale, 0, 0, ratio * scale, ratio * x, ratio * y);
    context.imageSmoothingEnabled = scale < 3;
    context.drawImage(this.picture, 0, 0);
    if (this.shown) {
      context.imageSmoothingEnabled = scale < 1;
      context.drawImage(this.layer, 0, 0);
    }
    this.drawTool(context, scale);
  }

  drawTool(context, scale) {
    if (this.locked) return;
    const colour = `rgb(${this.palette[this.object]})`;
    if (this.prompts) this.drawPrompt(context, scale);
    if (this.corners.length) {
      context.beginPath();
      for (const [x, y] of this.corners) context.lineTo(x, y);
      if (this.pointer) context.lineTo(...this.pointer);
      for (const [width, style] of [[3.5, "#000a"], [1.8, colour]]) {
        Object.assign(context, { lineWidth: width / scale, strokeStyle: style });
        context.stroke();
      }
      for (const [x, y] of this.corners) {
        context.beginPath();
        context.arc(x, y, 3.5 / scale, 0, 7);
        context.fillStyle = "#fff";
        context.fill();
        context.stroke();
      }
    } else if (this.pointer && (this.tool === "brush" || this.tool === "eraser")) {
      context.beginPath();
      context.arc(...this.pointer, this.size / 2, 0, 7);
      for (const [width, style] of [[3, "#000a"], [1.5, this.tool === "eraser" ? "#fff" : colour]]) {
        Object.assign(context, { lineWidth: width / scale, strokeStyle: style });
        context.stroke();
      }
    }
  }

  get prompts() { return ["box", "add", "subtract"].includes(this.tool); }

  drawPrompt(context, scale) {
    const prompt = this.asked ?? this.prompt;
    const box = this.corner && this.pointer ? this.box(this.corner, this.pointer) : prompt?.box;
    if (!box) return;
    const [x0, y0, x1, y1] = box;
    context.setLineDash(this.asked ? [6 / scale, 4 / scale] : []);
    for (const [width, style] of [[3.5, "#000a"], [1.8, "#fff"]]) {
      Object.assign(context, { lineWidth: width / scale, strokeStyle: style });
      context.strokeRect(x0, y0, x1 - x0, y1 - y0);
    }
    context.setLineDash([]);
    if (this.corner) return;
    for (const [x, y, positive] of prompt.clicks) {
      context.beginPath();
      context.arc(x + 0.5, y + 0.5, 6 / scale, 0, 7);
      Object.assign(context, { fillStyle: positive ? "#157347" : "#b3261e", lineWidth: 2 / scale, strokeStyle: "#fff" });
      context.fill();
      context.stroke();
      context.beginPath();
      for (const [dx, dy] of positive ? [[3, 0], [0, 3]] : [[3, 0]]) {
        context.moveTo(x + 0.5 - dx / scale, y + 0.5 - dy / scale);
        context.lineTo(x + 0.5 + dx / scale, y + 0.5 + dy / scale);
      }
      context.stroke();
    }
  }

  // Whole pixels between two corners, within the picture: [x0, y0, x1, y1].
  box([ax, ay], [bx, by]) {
    const within = (value, most) => Math.min(most, Math.max(0, value)), { width, height } = this;
    return [within(Math.floor(Math.min(ax, bx)), width), within(Math.floor(Math.min(ay, by)), height),
      within(Math.ceil(Math.max(ax, bx)), width), within(Math.ceil(Math.max(ay, by)), height)];
  }

  closeBox() {
    const box = this.box(this.corner, this.pointer ?? this.corner);
    this.corner = null;
    if (box[2] - box[0] < 3 || box[3] - box[1] < 3) return;  // a click with the box tool is none
    this.asked = { box, clicks: [], object: this.object, under: this.ids.slice(), mask: new Uint8Array(this.ids.length) };
    this.prompted(this.asked);
  }

  click(x, y) {
    if (x < 0 || y < 0 || x >= this.width || y >= this.height) return;
    const prompt = this.asked ?? this.prompt;
    if (prompt?.object !== this.object) return void this.prompted(null);
    this.asked = { ...prompt, clicks: [...prompt.clicks, [x, y, this.tool === "add"]] };
    this.prompted(this.asked);
  }

  // Draws the mask of a box and clicks, as it differs from the one before: what the brush has done elsewhere stays.
  answer(asked, mask) {
    if (this.asked !== asked) return;
    const { object, under, mask: old } = asked;
    this.edit(() => {
      for (let at = 0; at < mask.length; at++) {
        if (mask[at] > old[at]) this.ids[at] = object;
        else if (mask[at] < old[at] && this.ids[at] === object) this.ids[at] = under[at];
      }
      this.prompt = { ...asked, mask };
    }, true);
    this.paint(0, 0, this.width, this.height);
  }

  // Colours the mask in a rectangle: tinted, and outlined where two ids meet.
  paint(x0, y0, x1, y1) {
    x0 = Math.max(0, Math.floor(x0) - 1); y0 = Math.max(0, Math.floor(y0) - 1);
    x1 = Math.min(this.width, Math.ceil(x1) + 1); y1 = Math.min(this.height, Math.ceil(y1) + 1);
    if (x1 <= x0 || y1 <= y0) return;
    const { ids, width, height, palette } = this, tint = Math.round(255 * this.tint);
    const image = new ImageData(x1 - x0, y1 - y0);
    for (let y = y0, to = 0; y < y1; y++) {
      for (let x = x0, at = y * width + x0; x < x1; x++, at++, to += 4) {
        const id = ids[at];
        if (!id) continue;
        const edge = (x && ids[at - 1] !== id) || (x + 1 < width && ids[at + 1] !== id)
          || (y && ids[at - width] !== id) || (y + 1 < height && ids[at + width] !== id);
        const colour = palette[id];
        image.data[to] = colour[0]; image.data[to + 1] = colour[1]; image.data[to + 2] = colour[2];
        image.data[to + 3] = edge ? 255 : tint;
      }
    }
    this.layer.getContext("2d").putImageData(image, x0, y0);
  }

  at(event) {
    const box = this.canvas.getBoundingClientRect(), { scale, x, y } = this.place();
    return [(event.clientX - box.left - x) / scale, (event.clientY - box.top - y) / scale];
  }

  press(event) {
    if (!this.picture) return;
    this.canvas.focus({ preventScroll: true });
    this.canvas.setPointerCapture(event.pointerId);
    const [x, y] = this.pointer = this.at(event);
    if (event.button === 1 || event.button === 2 || event.altKey) {
      this.dragged = { x: event.clientX, y: event.clientY, view: { ...this.place() } };
    } else if (!this.locked) {
      if (this.tool === "polygon") this.corners.push([x, y]);
      else if (this.tool === "box") this.corner = [x, y];
      else if (this.prompts) this.click(Math.floor(x), Math.floor(y));
      else if (this.tool === "fill") this.edit(() => this.flood(Math.floor(x), Math.floor(y)));
      else { this.begin(); this.stroke = [x, y]; this.line(x, y, x, y); }
    }
    event.preventDefault();
    this.draw();
  }

  move(event) {
    if (!this.picture) return;
    this.pointer = this.at(event);
    if (this.dragged) {
      const { x, y, view } = this.dragged;
      this.view = { ...view, x: view.x + event.clientX - x, y: view.y + event.clientY - y };
      this.zoomed = true;
    } else if (this.stroke) {
      for (const one of event.getCoalescedEvents?.() ?? [event]) {
        const to = this.at(one);
        this.line(...this.stroke, ...to);
        this.stroke = to;
      }
    }
    this.draw();
  }

  release() {
    this.dragged = null;
    if (this.corner) { this.closeBox(); this.draw(); }
    if (this.stroke) { this.stroke = null; this.end(); }
  }

  wheel(event) {
    if (!this.picture) return;
    event.preventDefault();
    const [px, py] = this.at(event), { scale, x, y } = this.place();
    const to = Math.min(40, Math.max(0.05, scale * Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.0015))));
    this.view = { scale: to, x: x + px * (scale - to), y: y + py * (scale - to) };
    this.zoomed = true;
    this.draw();
  }

  begin() {
    this.before();
    this.asked = null;  // an answer that is under way would come too late
    this.old = { ids: this.ids.slice(), prompt: this.prompt };
  }

  end(always = false) {  // a click that changes nothing can be undone, too
    if (always || this.old.ids.some((id, at) => id !== this.ids[at])) {
      this.past.push(this.old);
      if (this.past.length > 30) this.past.shift();
      this.future.length = 0;
      this.changed();
    }
    this.old = null;
  }

  edit(action, always) { this.begin(); action(); this.end(always); this.draw(); }

  undo() { this.swap(this.past, this.future); }
  redo() { this.swap(this.future, this.past); }

  swap(from, to) {
    if (!from.length || this.stroke || this.locked) return;
    to.push({ ids: this.ids, prompt: this.prompt });
    Object.assign(this, from.pop());
    this.asked = this.corner = null;
    this.paint(0, 0, this.width, this.height);
    this.changed();
    this.draw();
  }

  // Sets all pixels within half the brush's size of a line.
  line(x0, y0, x1, y1) {
    const id = this.tool === "eraser" ? 0 : this.object, radius = Math.max(this.size / 2, 0.71);
    const dx = x1 - x0, dy = y1 - y0, length = dx * dx + dy * dy;
    const left = Math.min(x0, x1) - radius, right = Math.max(x0, x1) + radius;
    const top = Math.min(y0, y1) - radius, bottom = Math.max(y0, y1) + radius;
    for (let y = Math.max(0, Math.floor(top)); y < Math.min(this.height, bottom); y++) {
      for (let x = Math.max(0, Math.floor(left)); x < Math.min(this.width, right); x++) {
        const px = x + 0.5 - x0, py = y + 0.5 - y0;
        const along = length ? Math.min(1, Math.max(0, (px * dx + py * dy) / length)) : 0;
        if ((px - along * dx) ** 2 + (py - along * dy) ** 2 <= radius * radius) this.ids[y * this.width + x] = id;
      }
    }
    this.paint(left, top, right, bottom);
  }

  closePolygon() {
    const corners = this.corners.filter(([x, y], i, all) => !i || x !== all[i - 1][0] || y !== all[i - 1][1]);
    this.corners = [];
    if (corners.length > 2) this.edit(() => this.polygon(corners));
    this.draw();
  }

  // Sets the pixels whose centres lie inside, by the even-odd rule.
  polygon(corners) {
    for (let y = 0; y < this.height; y++) {
      const crossings = [];
      corners.forEach(([x0, y0], i) => {
        const [x1, y1] = corners[(i + 1) % corners.length], line = y + 0.5;
        if ((y0 <= line) !== (y1 <= line)) crossings.push(x0 + (line - y0) / (y1 - y0) * (x1 - x0));
      });
      crossings.sort((a, b) => a - b);
      for (let i = 0; i + 1 < crossings.length; i += 2) {
        const from = Math.max(0, Math.ceil(crossings[i] - 0.5)), to = Math.min(this.width, Math.ceil(crossings[i + 1] - 0.5));
        if (to > from) this.ids.fill(this.object, y * this.width + from, y * this.width + to);
      }
    }
    this.paint(0, 0, this.width, this.height);
  }

  // Gives the object to all pixels of the id under a point that hang together with it.
  flood(x, y) {
    const { ids, width, height } = this;
    if (x < 0 || y < 0 || x >= width || y >= height || ids[y * width + x] === this.object) return;
    const id = ids[y * width + x], stack = [y * width + x];
    while (stack.length) {
      const at = stack.pop();
      if (ids[at] !== id) continue;
      ids[at] = this.object;
      const column = at % width;
      if (column) stack.push(at - 1);
      if (column + 1 < width) stack.push(at + 1);
      if (at >= width) stack.push(at - width);
      if (at + width < ids.length) stack.push(at + width);
    }
    this.paint(0, 0, width, height);
  }
}
