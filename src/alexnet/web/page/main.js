// The page begins here: it finds its scene and shows it.

import {Scene} from "scene";

const page = JSON.parse(document.getElementById("page").textContent);
const app = document.getElementById("app");

function line(text) {
  const paragraph = document.createElement("p");
  paragraph.textContent = text;
  app.append(paragraph);
}

async function start() {
  if (page.mode !== "file") return;
  const scene = await Scene.embedded();
  window.alexnet = {scene};
  line(scene.data.network.label);
  for (const one of scene.data.classes.top) line(`${one.name}: ${(100 * one.probability).toFixed(1)} %`);
}

start();
