/* Follows sound: draws the columns that come from the server, and writes what it says into the page. */
"use strict";
(() => {
  const place = document.querySelector("[data-live]");
  if (!place) return;
  const canvas = document.getElementById("spectrogram");
  const kept = 600;
  let columns = [];
  let source = null;

  // From dark to light, as viridis: equal steps look equal, also without colours.
  const stops = [[0, 0, 10], [59, 28, 95], [45, 91, 140], [33, 145, 140], [94, 201, 98], [253, 231, 37]];
  const colours = Array.from({ length: 256 }, (_, value) => {
    const at = (value / 255) * (stops.length - 1);
    const low = Math.min(Math.floor(at), stops.length - 2);
    return stops[low].map((channel, row) => channel + (stops[low + 1][row] - channel) * (at - low));
  });

  const draw = (bands) => {
    if (!canvas || !columns.length) return;
    let high = 0;
    for (const column of columns) for (const value of column) high = Math.max(high, value);
    const low = Math.max(0, high - 140); // 70 dB
    const image = new ImageData(kept, bands);
    for (let row = 3; row < image.data.length; row += 4) image.data[row] = 255;
    columns.forEach((column, index) => {
      const x = kept - columns.length + index;
      for (let band = 0; band < bands; band++) {
        const colour = colours[Math.max(0, Math.round(((column[band] - low) / Math.max(1, high - low)) * 255))];
        image.data.set(colour, ((bands - 1 - band) * kept + x) * 4);
      }
    });
    const small = document.createElement("canvas");
    small.width = kept;
    small.height = bands;
    small.getContext("2d").putImageData(image, 0, 0);
    const context = canvas.getContext("2d");
    context.imageSmoothingEnabled = false;
    context.drawImage(small, 0, 0, canvas.width, canvas.height);
    canvas.dataset.columns = columns.length;
  };

  const write = (texts) => {
    for (const [id, text] of Object.entries(texts || {})) {
      const element = document.getElementById(id);
      if (element && element.textContent !== text) element.textContent = text;
    }
  };

  const take = (event) => {
    const message = JSON.parse(event.data);
    if (message.phase && place.dataset.phase && message.phase !== place.dataset.phase) {
      source.close();
      location.assign(location.pathname);
      return;
    }
    const bytes = Uint8Array.from(atob(message.columns || ""), (char) => char.charCodeAt(0));
    for (let row = 0; row < bytes.length; row += message.bands) columns.push(bytes.slice(row, row + message.bands));
    columns = columns.slice(-kept);
    if (bytes.length) draw(message.bands);
    const meter = document.getElementById("level");
    if (meter) meter.value = message.level;
    for (const bar of document.querySelectorAll("[data-value]")) {
      if (message.most && bar.dataset.value === "fitting") bar.max = message.most;
      if (message.values) bar.value = message.values[bar.dataset.value];
    }
    write(message.texts);
  };

  const open = () => {
    columns = [];
    source = new EventSource(place.dataset.live);
    source.addEventListener("sound", take);
  };
  // A page that nobody sees costs nothing.
  document.addEventListener("visibilitychange", () => (document.hidden ? source.close() : open()));
  // Nor does it go elsewhere than the person does.
  for (const leaving of ["submit", "pagehide"]) addEventListener(leaving, () => source.close());
  open();
})();
