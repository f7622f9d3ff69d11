// The two canvases: the square on the photo, and the brush on the mask.

const SHOWN = 640; // pixels that a small picture is shown with at least
const UNDO = 20; // strokes that can be taken back

export function loadImage(address) {
  return new Promise((resolve, reject) => {
    const image = new Image();
    image.onload = () => resolve(image);
    image.onerror = () => reject(new Error(`no picture at ${address}`));
    image.src = address;
  });
}

function fit(canvas, width, height) {
  const factor = Math.max(1, Math.ceil(SHOWN / Math.max(width, height)));
  canvas.width = width * factor;
  canvas.height = height * factor;
  const pen = canvas.getContext("2d");
  pen.imageSmoothingEnabled = factor === 1;
  return pen;
}

// Where a pointer is, in shares of the canvas.
function place(canvas, event) {
  const box = canvas.getBoundingClientRect();
  return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
}

// The square that is learned: dragged, moved with the arrow keys, sized by a slider.
export class Cropper {
  constructor(canvas, slider, said, changed) {
    Object.assign(this, { canvas, slider, said, changed });
    canvas.addEventListener("pointerdown", (event) => this.grab(event));
    canvas.addEventListener("pointermove", (event) => this.drag(event));
    canvas.addEventListener("pointerup", () => this.drop());
    canvas.addEventListener("pointercancel", () => this.drop());
    canvas.addEventListener("keydown", (event) => this.key(event));
    slider.addEventListener("input", () => this.resize(Number(slider.value) / 100));
    slider.addEventListener("change", () => this.changed(this.crop));
  }

  show(image, width, height, crop) {
    Object.assign(this, { image, width, height, crop: [...crop] });
    this.least = Math.min(width, height, Math.max(16, Math.round(Math.min(width, height) / 5)));
    this.draw();
  }

  draw() {
    const { canvas, image } = this;
    const pen = fit(canvas, image.naturalWidth, image.naturalHeight);
    const scale = canvas.width / this.width;
    const [left, top, side] = this.crop.map((value) => value * scale);
    pen.drawImage(image, 0, 0, canvas.width, canvas.height);
    pen.fillStyle = "rgba(10, 10, 14, .62)";
    pen.beginPath();
    pen.rect(0, 0, canvas.width, canvas.height);
    pen.rect(left, top, side, side);
    pen.fill("evenodd");
    const line = Math.max(2, canvas.width / 260);
    for (const [color, width] of [["#000", line * 2], ["#fff", line]]) {
      pen.strokeStyle = color;
      pen.lineWidth = width;
      pen.strokeRect(left + width / 2, top + width / 2, side - width, side - width);
    }
    const most = Math.min(this.width, this.height);
    const share = most > this.least ? (this.crop[2] - this.least) / (most - this.least) : 1;
    this.slider.value = Math.round(100 * share);
    this.slider.disabled = most <= this.least;
    this.said.textContent = `${this.crop[2]} × ${this.crop[2]} of ${this.width} × ${this.height} pixels`;
  }

  move(left, top) {
    const side = this.crop[2];
    this.crop[0] = Math.round(Math.min(Math.max(left, 0), this.width - side));
    this.crop[1] = Math.round(Math.min(Math.max(top, 0), this.height - side));
    this.draw();
  }

  resize(share) {
    const most = Math.min(this.width, this.height);
    const [left, top, side] = this.crop;
    const now = Math.round(this.least + (most - this.least) * Math.min(Math.max(share, 0), 1));
    this.crop[2] = now;
    this.move(left + (side - now) / 2, top + (side - now) / 2);
  }

  grab(event) {
    const [x, y] = place(this.canvas, event);
    this.canvas.setPointerCapture(event.pointerId);
    this.from = [x * this.width - this.crop[0], y * this.height - this.crop[1]];
    this.before = [...this.crop];
  }

  drag(event) {
    if (!this.from) return;
    const [x, y] = place(this.canvas, event);
    this.move(x * this.width - this.from[0], y * this.height - this.from[1]);
  }

  drop() {
    if (!this.from) return;
    this.from = null;
    if (this.before.some((value, index) => value !== this.crop[index])) this.changed(this.crop);
  }

  key(event) {
    const step = Math.max(1, Math.round(this.crop[2] / 20));
    const ways = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const sizes = { "+": 5, "-": -5 };
    if (event.key in ways) {
      const [x, y] = ways[event.key];
      this.move(this.crop[0] + x * step, this.crop[1] + y * step);
    } else if (event.key in sizes) {
      this.resize((Number(this.slider.value) + sizes[event.key]) / 100);
    } else return;
    event.preventDefault();
    clearTimeout(this.soon);
    this.soon = setTimeout(() => this.changed(this.crop), 400);
  }
}

// The mask: white where the subject is, kept as the opacity of a canvas of its own.
export class Brush {
  constructor(canvas, size, undo, adds, changed) {
    Object.assign(this, { canvas, size, undo, adds, changed, at: [0.5, 0.5], inside: false });
    this.mask = document.createElement("canvas");
    this.shade = document.createElement("canvas");
    this.strokes = [];
    canvas.addEventListener("pointerdown", (event) => this.begin(event));
    canvas.addEventListener("pointermove", (event) => this.go(event));
    canvas.addEventListener("pointerup", () => this.end());
    canvas.addEventListener("pointercancel", () => this.end());
    for (const [name, inside] of [["pointerenter", true], ["pointerleave", false]]) {
      canvas.addEventListener(name, () => this.enter(inside));
    }
    canvas.addEventListener("focus", () => this.enter(true));
    canvas.addEventListener("blur", () => this.enter(false));
    canvas.addEventListener("keydown", (event) => this.key(event));
    undo.addEventListener("click", () => this.back());
  }

  show(photo, mask) {
    this.photo = photo;
    this.mask.width = photo.naturalWidth;
    this.mask.height = photo.naturalHeight;
    const pen = this.mask.getContext("2d", { willReadFrequently: true });
    pen.drawImage(mask, 0, 0, this.mask.width, this.mask.height);
    const pixels = pen.getImageData(0, 0, this.mask.width, this.mask.height);
    for (let at = 0; at < pixels.data.length; at += 4) {
      pixels.data[at + 3] = pixels.data[at];
      pixels.data[at] = pixels.data[at + 1] = pixels.data[at + 2] = 255;
    }
    pen.putImageData(pixels, 0, 0);
    this.strokes = [];
    this.undo.disabled = true;
    this.draw();
  }

  draw() {
    const { canvas, mask, shade, photo } = this;
    if (!photo) return;
    const pen = fit(canvas, mask.width, mask.height);
    pen.drawImage(photo, 0, 0, canvas.width, canvas.height);
    shade.width = mask.width;
    shade.height = mask.height;
    const dark = shade.getContext("2d");
    dark.fillStyle = "rgba(12, 10, 28, .8)";
    dark.fillRect(0, 0, shade.width, shade.height);
    dark.globalCompositeOperation = "destination-out";
    dark.drawImage(mask, 0, 0);
    pen.drawImage(shade, 0, 0, canvas.width, canvas.height);
    if (!this.inside) return;
    const radius = this.radius * canvas.width;
    for (const [color, width] of [["#000", 4], ["#fff", 2]]) {
      pen.strokeStyle = color;
      pen.lineWidth = width * Math.max(1, canvas.width / 700);
      pen.beginPath();
      pen.arc(this.at[0] * canvas.width, this.at[1] * canvas.height, radius, 0, 2 * Math.PI);
      pen.stroke();
    }
  }

  get radius() { // in shares of the width
    return 0.008 + 0.14 * (Number(this.size.value) / 100) ** 1.6;
  }

  paint(from, to) {
    const pen = this.mask.getContext("2d");
    const { width, height } = this.mask;
    pen.globalCompositeOperation = this.adds() ? "source-over" : "destination-out";
    pen.strokeStyle = pen.fillStyle = "#fff";
    pen.lineCap = "round";
    pen.lineWidth = Math.max(1, 2 * this.radius * width);
    pen.beginPath();
    pen.moveTo(from[0] * width, from[1] * height);
    pen.lineTo(to[0] * width + 0.01, to[1] * height);
    pen.stroke();
    pen.globalCompositeOperation = "source-over";
  }

  keep() {
    const { width, height } = this.mask;
    this.strokes.push(this.mask.getContext("2d").getImageData(0, 0, width, height));
    if (this.strokes.length > UNDO) this.strokes.shift();
    this.undo.disabled = false;
  }

  begin(event) {
    this.canvas.setPointerCapture(event.pointerId);
    this.keep();
    this.painting = true;
    this.at = place(this.canvas, event);
    this.paint(this.at, this.at);
    this.draw();
  }

  go(event) {
    const now = place(this.canvas, event);
    if (this.painting) this.paint(this.at, now);
    this.at = now;
    this.inside = true;
    this.draw();
  }

  end() {
    if (!this.painting) return;
    this.painting = false;
    this.changed();
  }

  enter(inside) {
    this.inside = inside;
    this.draw();
  }

  back() {
    const before = this.strokes.pop();
    if (!before) return;
    this.mask.getContext("2d").putImageData(before, 0, 0);
    this.undo.disabled = !this.strokes.length;
    this.draw();
    this.changed();
  }

  key(event) {
    const ways = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (event.key in ways) {
      this.at = this.at.map((value, axis) => Math.min(Math.max(value + ways[event.key][axis] / 50, 0), 1));
      this.draw();
    } else if (event.key === " ") {
      this.keep();
      this.paint(this.at, this.at);
      this.draw();
      this.changed();
    } else return;
    event.preventDefault();
  }

  // The mask as a PNG, white on black.
  file() {
    const whole = document.createElement("canvas");
    whole.width = this.mask.width;
    whole.height = this.mask.height;
    const pen = whole.getContext("2d");
    pen.fillRect(0, 0, whole.width, whole.height);
    pen.drawImage(this.mask, 0, 0);
    return new Promise((resolve) => whole.toBlob(resolve, "image/png"));
  }
}
