// The configuration of OHIF for this exchange. What differs stands in `exchange`, before this text.

window.PUBLIC_URL = exchange.files;
window.browserImportFunction = (module) => import(module);

// The portal's language, until the reader chooses another one in the viewer.
if (localStorage.getItem("exchange_language") !== exchange.language) {
  localStorage.setItem("exchange_language", exchange.language);
  localStorage.setItem("i18nextLng", exchange.language);
}
document.documentElement.lang = exchange.language;

// The browser's graphics take a while to begin, for which OHIF would wait in the end: meanwhile its
// scripts are read. In a worker, since asking for them stops whoever asks.
try {
  const asks = "postMessage(new OffscreenCanvas(1, 1).getContext('webgl2') !== null)";
  const begun = new Worker(URL.createObjectURL(new Blob([asks], { type: "text/javascript" })));
  begun.onmessage = () => begun.terminate();
} catch {
  // A browser without graphics in workers begins them when it needs them.
}

// A session goes on for as long as somebody works here, also when everything is loaded; once it has
// ended, what is on the screen goes, and the same study comes back after signing in.
(() => {
  let leaving = false;
  let asked = Date.now();
  let worked = Date.now();

  const ended = (status) => {
    if (status !== 401 || leaving) return;
    leaving = true;
    const here = location.pathname + location.search;
    location.replace(`${exchange.signIn}?next=${encodeURIComponent(here)}`);
  };

  const { fetch } = window;
  window.fetch = async (...request) => {
    const answer = await fetch(...request);
    ended(answer.status);
    return answer;
  };
  const { send } = XMLHttpRequest.prototype;
  XMLHttpRequest.prototype.send = function (...body) {
    this.addEventListener("load", () => ended(this.status));
    return send.apply(this, body);
  };

  const ask = () => {
    asked = Date.now();
    window.fetch(exchange.session, { cache: "no-store" }).catch(() => {}); // a network that is gone
  };
  const work = () => {
    worked = Date.now();
    if (worked - asked > exchange.idle * 250) ask();
  };
  for (const sign of ["pointerdown", "pointermove", "wheel", "keydown"]) {
    addEventListener(sign, work, { capture: true, passive: true });
  }
  setInterval(() => {
    const since = Math.max(worked, asked);
    if (Date.now() - since > exchange.idle * 1000) ask();
  }, Math.min(exchange.idle * 1000, 30000));
})();

// Two studies beside each other, of the second the series that is most like the first's. They scroll
// together, by where their slices lie.
const comparing = (() => {
  const ofStudy = (index) => ({
    attribute: "studyInstanceUIDsIndex",
    from: "options",
    required: true,
    constraint: { equals: { value: index } },
  });
  const withImages = {
    attribute: "numImageFrames",
    required: true,
    constraint: { greaterThan: { value: 0 } },
  };
  const severalImages = {
    attribute: "numImageFrames",
    weight: 5,
    constraint: { greaterThan: { value: 1 } },
  };
  const likeFirst = (same, weight) => ({
    attribute: "likeFirst",
    same,
    weight,
    constraint: { equals: { value: true } },
  });
  const beside = (id) => ({
    viewportOptions: {
      viewportType: "stack",
      toolGroupId: "default",
      allowUnmatchedView: true,
      syncGroups: [{ type: "imageslice", id: "comparing", source: true, target: true }],
    },
    displaySets: [{ id }],
  });
  return {
    id: exchange.comparing.id,
    name: exchange.comparing.name,
    numberOfPriorsReferenced: 1,
    protocolMatchingRules: [],
    toolGroupIds: ["default"],
    displaySetSelectors: {
      first: { studyMatchingRules: [ofStudy(0)], seriesMatchingRules: [withImages, severalImages] },
      second: {
        studyMatchingRules: [ofStudy(1)],
        seriesMatchingRules: [
          withImages,
          severalImages,
          likeFirst("Modality", 20),
          likeFirst("SeriesDescription", 10),
        ],
      },
    },
    defaultViewport: beside("first"),
    stages: [
      {
        name: exchange.comparing.name,
        viewportStructure: { layoutType: "grid", properties: { rows: 1, columns: 2 } },
        viewports: [beside("first"), beside("second")],
      },
    ],
  };
})();

window.config = {
  name: "exchange",
  routerBasename: "/viewer",
  extensions: [
    {
      id: comparing.id,
      preRegistration: ({ servicesManager }) => {
        const { displaySetService, hangingProtocolService } = servicesManager.services;
        hangingProtocolService.addCustomAttribute(
          "likeFirst",
          "As the series of the first study",
          function (displaySet, { displaySetMatchDetails }) {
            const chosen = displaySetMatchDetails.get("first")?.displaySetInstanceUID;
            const first = chosen && displaySetService.getDisplaySetByUID(chosen);
            return first?.[this.same] === displaySet[this.same];
          },
        );
      },
      getHangingProtocolModule: () => [{ name: comparing.id, protocol: comparing }],
    },
  ],
  modes: [],
  customizationService: [
    {
      "ohif.tours": { $set: [] },
      // Whose image it is stands on each of them.
      "viewportOverlay.topRight": {
        $set: [
          {
            id: "PatientName",
            inheritsFrom: "ohif.overlayItem",
            label: "",
            title: "Patient name",
            contentF: ({ referenceInstance, formatters }) =>
              formatters.formatPN(referenceInstance?.PatientName),
          },
          {
            id: "PatientID",
            inheritsFrom: "ohif.overlayItem",
            label: "",
            title: "Patient ID",
            contentF: ({ referenceInstance }) => referenceInstance?.PatientID,
          },
        ],
      },
    },
  ],
  showStudyList: true,
  showPatientInfo: "visible",
  maxNumberOfWebWorkers: Math.max(1, Math.min(4, (navigator.hardwareConcurrency || 2) - 1)),
  showWarningMessageForCrossOrigin: false,
  showCPUFallbackMessage: false,
  showLoadingIndicator: true,
  strictZSpacingForVolumeViewport: true,
  groupEnabledModesFirst: true,
  investigationalUseDialog: { option: "never" },
  showErrorDetails: "dev",
  maxNumRequests: { interaction: 100, thumbnail: 5, prefetch: 6 },
  defaultDataSourceName: "exchange",
  dataSources: [
    {
      namespace: "@ohif/extension-default.dataSourcesModule.dicomweb",
      sourceName: "exchange",
      configuration: {
        friendlyName: exchange.name,
        name: "exchange",
        qidoRoot: location.origin + exchange.dicomweb,
        wadoRoot: location.origin + exchange.dicomweb,
        wadoUriRoot: `${location.origin}${exchange.dicomweb}/wado`,
        qidoSupportsIncludeField: true,
        imageRendering: "wadors",
        thumbnailRendering: "thumbnail",
        enableStudyLazyLoad: true,
        supportsFuzzyMatching: true,
        supportsWildcard: true,
        supportsReject: false,
        dicomUploadEnabled: false,
        singlepart: "bulkdata,video,pdf",
        bulkDataURI: { enabled: true, relativeResolution: "studies" },
        omitQuotationForMultipartRequest: true,
      },
    },
  ],
};
