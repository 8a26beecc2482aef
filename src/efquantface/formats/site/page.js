// The page: two pictures, the marks on their eyes, and the similarity of both faces.
import { aligned } from "./align.js";
import { openRecognizer, similarity } from "./recognizer.js";
import { decided, fillRates, told } from "./words.js";

const LARGEST = 4096 * 4096; // pixels; browsers on phones hold no larger canvas
const PAUSE = 150; // ms after the last move of a mark
const find = (id) => document.getElementById(id);
const result = find("result");
const pictures = [];
let recognizer;

/** One of the two pictures: a file or the camera, its marks, its crop and its embedding. */
class Picture {
  constructor(title) {
    const part = find("picture").content.cloneNode(true);
    this.root = part.querySelector("section");
    const one = (selector) => this.root.querySelector(selector);
    [this.stage, this.photo, this.camera] = [".stage", ".photo", ".camera"].map(one);
    [this.canvas, this.crop, this.video] = [".photo canvas", ".crop", "video"].map(one);
    [this.status, this.empty, this.file] = [".status", ".empty", "input[type=file]"].map(one);
    this.marks = [...this.root.querySelectorAll(".mark")].map((mark, k) => new Mark(this, mark, k));
    this.kinds = [...this.root.querySelectorAll("input[type=radio]")];
    const heading = one("h2");
    heading.textContent = title;
    heading.id = title.replace(" ", "-").toLowerCase();
    this.root.setAttribute("aria-labelledby", heading.id);
    this.canvas.setAttribute("aria-label", title);
    for (const kind of this.kinds) {
      kind.name = `${heading.id}-kind`;
      kind.addEventListener("change", () => this.changed(0));
    }
    this.file.addEventListener("change", () => {
      if (this.file.files[0]) this.open(this.file.files[0]);
      this.file.value = ""; // so that the same file can be chosen again
    });
    this.canvas.addEventListener("click", (event) => this.click(event));
    one(".start").addEventListener("click", () => this.startCamera());
    one(".take").addEventListener("click", () => this.take());
    this.stage.addEventListener("dragover", (event) => event.preventDefault());
    this.stage.addEventListener("drop", (event) => {
      event.preventDefault();
      if (event.dataTransfer.files[0]) this.open(event.dataTransfer.files[0]);
    });
    find("pictures").append(part);
  }

  get kind() {
    return this.kinds.find((kind) => kind.checked).value;
  }

  async open(file) {
    this.stopCamera();
    try {
      // the file's own pixels, turned upright
      const options = { colorSpaceConversion: "none", imageOrientation: "from-image" };
      this.show(await createImageBitmap(file, options));
    } catch {
      this.say(`${file.name} is no picture that this browser can read.`);
    }
  }

  /** Show an image or a frame of the camera. */
  show(source) {
    const [width, height] = [
      source.videoWidth ?? source.width,
      source.videoHeight ?? source.height,
    ];
    const scale = Math.min(1, Math.sqrt(LARGEST / (width * height)));
    this.canvas.width = Math.floor(width * scale);
    this.canvas.height = Math.floor(height * scale);
    const context = this.canvas.getContext("2d", { alpha: false, willReadFrequently: true });
    context.drawImage(source, 0, 0, this.canvas.width, this.canvas.height);
    this.image = context.getImageData(0, 0, this.canvas.width, this.canvas.height);
    this.empty.hidden = true;
    this.photo.hidden = false;
    const { site } = recognizer;
    const isCrop = this.fits() || !site.eyes;
    this.kinds.find((kind) => kind.value === (isCrop ? "crop" : "photo")).checked = true;
    for (const mark of this.marks) mark.reset();
    this.changed(0);
  }

  /** Whether the picture has the size of a crop. */
  fits() {
    const { width, height } = recognizer.contract;
    return this.image.width === width && this.image.height === height;
  }

  /** Set a mark that has no place yet; move the nearer one where both have. */
  click(event) {
    const [x, y] = this.place(event);
    const far = (mark) => Math.hypot(mark.x - x, mark.y - y);
    const [first, second] = this.marks;
    const free = this.marks.find((mark) => !mark.placed);
    (free ?? (far(first) <= far(second) ? first : second)).move(x, y);
  }

  /** The pixel under a pointer. */
  place({ clientX, clientY }) {
    const box = this.canvas.getBoundingClientRect();
    const scale = this.canvas.width / box.width;
    return [(clientX - box.left) * scale - 0.5, (clientY - box.top) * scale - 0.5];
  }

  /** Compute the crop and the embedding again, after a pause without another change. */
  changed(pause = PAUSE) {
    [this.embedding, this.work] = [undefined, undefined];
    const marked = this.image && recognizer.site.eyes && this.kind === "photo";
    this.root.classList.toggle("marked", Boolean(marked));
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.embed(), pause);
    tell();
  }

  async embed() {
    const crop = this.cropped();
    this.crop.hidden = !crop;
    if (!crop) return;
    [this.crop.width, this.crop.height] = [crop.width, crop.height];
    const pixels = new ImageData(crop.data, crop.width, crop.height);
    this.crop.getContext("2d").putImageData(pixels, 0, 0);
    const work = (this.work = recognizer.embed(crop));
    try {
      const embedding = await work;
      if (work !== this.work) return; // something changed meanwhile
      this.embedding = embedding;
      const isCrop = this.kind === "crop";
      this.say(isCrop ? "Taken as it is." : "Aligned. Drag a mark, or move it with arrow keys.");
    } catch (error) {
      this.say(`The network does not run: ${error.message}`);
    }
    tell();
  }

  /** The crop; undefined, and a sentence on the page, where something is missing. */
  cropped() {
    if (!this.image) return undefined;
    const { contract, site } = recognizer;
    const { width, height } = contract;
    if (this.kind === "crop") {
      if (this.fits()) return this.image;
      const { width: w, height: h } = this.image;
      this.say(`A crop has ${width} x ${height} pixels, this picture ${w} x ${h}.`);
    } else if (!site.eyes) {
      this.say("This model names no template to align to: give it aligned crops.");
    } else if (this.marks.some((mark) => !mark.placed)) {
      this.say("Click on each eye. Or: Tab to a mark, arrow keys, Enter.");
    } else {
      const eyes = this.marks.map(({ x, y }) => [x, y]).sort((p, q) => p[0] - q[0]);
      try {
        return aligned(this.image, eyes, site.eyes, width, height);
      } catch (error) {
        this.say(error.message);
      }
    }
    return undefined;
  }

  say(text) {
    this.status.textContent = text;
  }

  async startCamera() {
    if (!navigator.mediaDevices) {
      this.say("The camera needs https or localhost.");
      return;
    }
    this.stopCamera();
    try {
      this.stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "user" } });
    } catch (error) {
      this.say(`There is no camera to use (${error.name}).`);
      return;
    }
    this.video.srcObject = this.stream;
    [this.camera.hidden, this.photo.hidden, this.empty.hidden] = [false, true, true];
    await this.video.play();
    this.camera.querySelector("button").focus();
  }

  take() {
    if (this.video.videoWidth) this.show(this.video);
    this.stopCamera();
    this.marks[0].root.focus();
  }

  stopCamera() {
    for (const track of this.stream?.getTracks() ?? []) track.stop();
    this.stream = undefined;
    this.camera.hidden = true;
    this.photo.hidden = !this.image;
    this.empty.hidden = Boolean(this.image);
  }
}

/** The mark on an eye: set by a click, dragged, or moved by arrow keys (with Shift by ten pixels). */
class Mark {
  constructor(picture, root, index) {
    [this.picture, this.root, this.name] = [picture, root, index ? "Second eye" : "First eye"];
    this.index = index;
    root.setAttribute("aria-label", this.name);
    root.addEventListener("keydown", (event) => this.key(event));
    root.addEventListener("pointerdown", (event) => {
      root.setPointerCapture(event.pointerId);
      const [x, y] = picture.place(event);
      this.grip = [this.x - x, this.y - y];
    });
    root.addEventListener("pointermove", (event) => {
      if (!root.hasPointerCapture(event.pointerId)) return;
      const [x, y] = picture.place(event);
      this.move(x + this.grip[0], y + this.grip[1]);
    });
    root.addEventListener("pointerup", (event) => {
      if (!this.placed) this.move(...picture.place(event)); // a click on a mark that is there already
    });
  }

  /** Move the mark to where the eye would be if the picture were a crop. */
  reset() {
    const { contract, site } = recognizer;
    const { width, height } = this.picture.canvas;
    const scale = Math.min(width / contract.width, height / contract.height);
    const [x, y] = site.eyes?.[this.index] ?? [0, 0];
    this.set(
      (width - contract.width * scale) / 2 + (x + 0.5) * scale - 0.5,
      (height - contract.height * scale) / 2 + (y + 0.5) * scale - 0.5,
    );
    this.placed = false;
    this.root.classList.remove("placed");
  }

  key(event) {
    const step = event.shiftKey ? 10 : 1;
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const [x, y] = way[event.key] ?? [0, 0];
    if (!way[event.key] && event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    this.move(this.x + step * x, this.y + step * y);
  }

  move(x, y) {
    this.set(x, y);
    this.placed = true;
    this.root.classList.add("placed");
    this.picture.changed();
  }

  set(x, y) {
    const { width, height } = this.picture.canvas;
    this.x = Math.min(Math.max(x, 0), width - 1);
    this.y = Math.min(Math.max(y, 0), height - 1);
    this.root.style.left = `${(100 * (this.x + 0.5)) / width}%`;
    this.root.style.top = `${(100 * (this.y + 0.5)) / height}%`;
    const [right, down] = [Math.round(this.x), Math.round(this.y)];
    const values = { valuemin: 0, valuemax: width - 1, valuenow: right };
    values.valuetext = `${right} to the right, ${down} down, of ${width} by ${height} pixels`;
    for (const [name, value] of Object.entries(values))
      this.root.setAttribute(`aria-${name}`, value);
  }
}

/** Show the result of both pictures. */
function tell() {
  const [first, second] = pictures.map((picture) => picture.embedding);
  const whole = first && second;
  result.className = "";
  delete result.dataset.cosine;
  if (!whole) {
    result.textContent = first || second ? "One face is ready." : "Choose two faces.";
    return;
  }
  const cosine = similarity(first, second);
  const choice = recognizer.site.decisions[find("rate").selectedIndex];
  result.className = decided(cosine, choice);
  result.textContent = told(cosine, choice);
  result.dataset.cosine = cosine;
}

try {
  recognizer = await openRecognizer();
  const { contract, site } = recognizer;
  find("facts").textContent =
    `${site.name}, crops of ${contract.width} x ${contract.height} pixels. ${contract.licence}`.trim();
  fillRates(site.decisions, find("rates"), find("rate"), find("measured"));
  find("rate").addEventListener("change", tell);
  pictures.push(new Picture("First picture"), new Picture("Second picture"));
  tell();
} catch (error) {
  result.textContent = `The model does not load: ${error.message} Was npm install run in this folder?`;
  throw error;
}
