// All of it, from the top.

begin();
byId("plain").remove();
showBar();
showHead();
showPareto();
showRadar();
showTable();
showLayers();
showViewer();
showFlips();
showPublished();
showMade();
document.documentElement.dataset.ready = "yes";
