// swift-tools-version:5.9
// lcc for Swift. Never compiled: it was written without a Swift compiler (docs/embed.md).
//
//     swift build -Xlinker -L/path/to/the/folder/of/liblcc
import PackageDescription

let package = Package(
    name: "Lcc",
    platforms: [.macOS(.v12), .iOS(.v15)],
    products: [.library(name: "Lcc", targets: ["Lcc"])],
    targets: [
        .systemLibrary(name: "CLcc", path: "Sources/CLcc"),
        .target(name: "Lcc", dependencies: ["CLcc"], path: "Sources/Lcc"),
    ]
)
