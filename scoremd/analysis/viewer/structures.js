// Frames of the ensembles in one 3Dmol.js viewer, an ensemble a colour; checkboxes show and hide them.
(function () {
  const place = document.getElementById("structures");
  const { elements, bonds, colours, frames } = JSON.parse(document.getElementById("structures-data").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const partners = elements.map((_, k) => bonds.filter((b) => b.includes(k)).map((b) => b[0] + b[1] - k));
  const colour = (name) => (name === "reference" ? (dark.matches ? "#c8ced4" : "#555d66") : colours[name]);
  let viewer;
  try {
    viewer = $3Dmol.createViewer(place, { backgroundAlpha: 0 });
    if (!viewer) throw new Error("no viewer");
  } catch (error) {
    place.textContent = "This browser shows no WebGL: structures cannot be drawn.";
    return;
  }
  const models = {};
  for (const [name, shapes] of Object.entries(frames)) {
    models[name] = shapes.map((shape) => {
      const model = viewer.addModel();
      model.addAtoms(shape.map(([x, y, z], k) => (
        { elem: elements[k], x, y, z, serial: k, bonds: partners[k], bondOrder: partners[k].map(() => 1) }
      )));
      return model;
    });
  }
  const draw = () => {
    for (const box of document.querySelectorAll("#structures-key input")) {
      const style = { stick: { radius: 0.08, color: colour(box.value) }, sphere: { radius: 0.16, color: colour(box.value) } };
      for (const model of models[box.value]) model.setStyle({}, box.checked ? style : {});
    }
    viewer.render();
  };
  document.getElementById("structures-key").addEventListener("change", draw);
  dark.addEventListener("change", draw);
  draw();
  viewer.zoomTo();
  viewer.render();
})();
